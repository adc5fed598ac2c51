# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: Apache-2.0
"""Vector engine and vector memory: random passes against the golden machine."""

from typing import Any

import pytest

from afternorm.config import Config, preset
from hdl.vector.engine import VectorEngine
from tb.runner import BenchError, Built, build
from tb.vector_harness import VectorHarness

SMALL = {"scratchpad_depth": 256, "vector_depth": 256, "scale_depth": 64}
CASES: dict[str, tuple[Config, int]] = {
    "tiny": (preset("tiny").with_(**SMALL), 0),
    "tree": (preset("tiny").with_(**SMALL, fraction_bits=9, acc_width=32), 5),
    "wide": (
        preset("small").with_(
            **SMALL, columns=16, fraction_bits=23, acc_width=64, rows_max=16, stat_depth=16
        ),
        0,
    ),
    "odd": (
        preset("tiny").with_(
            **SMALL | {"scale_depth": 128}, columns=24, acc_width=72, lanes=2, fraction_bits=5
        ),
        7,
    ),
}


def make(case: str) -> tuple[Built, dict[str, Any]]:
    config, tree_latency = CASES[case]
    harness = VectorHarness(config=config, tree_latency=tree_latency)
    settings = {
        "config": config.to_dict(),
        "batches": 9,
        "instructions": 30,
        "flags": 60,
        "vector_latency": harness.engine.vector_latency,
        "blocks_latency": harness.engine.blocks_latency,
    }
    return build(harness, name=f"vector_{case}"), settings


@pytest.mark.parametrize(
    "case",
    [pytest.param(n, marks=pytest.mark.slow if n in ("tree", "odd") else []) for n in CASES],
)
def test_engine_matches_golden(case: str, seed: int) -> None:
    built, settings = make(case)
    built.run("tb.bench_vector", parameters=settings, seed=seed)


@pytest.mark.parametrize("corrupt", ["vector", "blocks"])
def test_bench_sees_one_wrong_bit(corrupt: str, seed: int, tmp_path: Any) -> None:
    built, settings = make("tiny")
    with pytest.raises(BenchError, match=": 1 wrong"):
        built.run(
            "tb.bench_vector",
            parameters=settings | {"corrupt": corrupt, "batches": 1},
            seed=seed,
            testcase="matches_machine",
            workdir=tmp_path,
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"tree_latency": -1}, "tree_latency must be")],
)
def test_parameters_are_checked(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VectorEngine(**{"config": preset("tiny"), "tree_latency": 0} | changes)
