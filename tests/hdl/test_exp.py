# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: Apache-2.0
"""The exp engine: bit by bit and cycle by cycle against golden."""

from typing import Any

import pytest

from afternorm.config import Config, preset
from hdl.exp.engine import ExpEngine
from hdl.exp.lane import ExpLane
from tb.runner import BenchError, build

TINY = preset("tiny")
# name: config and tile
CASES: dict[str, tuple[Config, int]] = {
    "block8_c4_f9": (TINY.with_(fraction_bits=9), 0),
    "block8_c16_f4": (TINY.with_(fraction_bits=4, columns=16, tiles=4, lanes=8, acc_width=16), 3),
    "block16_c8_f23": (
        TINY.with_(fraction_bits=23, block=16, columns=8, acc_width=48, tiles=16),
        13,
    ),
    "block32_c32_f15": (preset("large").with_(rows_max=9), 1),
}


def run(case: str, seed: int, **settings: Any) -> None:
    config, tile = CASES[case]
    unit = ExpEngine(config, tile)
    settings |= {
        "config": config.to_dict(),
        "tile": tile,
        "overhead": settings.get("overhead", unit.overhead),
        "queue_depth": unit.queue_depth,
    }
    build(unit, name=f"exp_{case}").run(
        "tb.bench_exp",
        parameters=settings,
        seed=seed,
        testcase=settings.pop("testcase", None),
        workdir=settings.pop("workdir", None),
    )


@pytest.mark.parametrize("case", CASES)
def test_matches_golden(case: str, seed: int) -> None:
    run(case, seed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"corrupt": "bit"}, "block 3: "),
        ({"corrupt": "valid"}, "done after 0 blocks, not 1"),
        ({"overhead": 1}, "cycles, not"),
    ],
)
def test_bench_sees(settings: dict[str, Any], message: str, seed: int, tmp_path: Any) -> None:
    with pytest.raises(BenchError, match=message):
        run("block8_c4_f9", seed, testcase="takes_exact_cycles", workdir=tmp_path, **settings)


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"tile must be .* not 1"):
        ExpEngine(TINY, 1)
    with pytest.raises(ValueError, match=r"fraction_bits must be .* not 3"):
        ExpLane(fraction_bits=3)
