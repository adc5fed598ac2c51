# SPDX-License-Identifier: Apache-2.0
"""The program fetch: programs in order, ends, halts, restarts."""

import pytest

from afternorm.config import preset
from hdl.dma.fetch import Fetch
from tb.runner import build
from tb.stream import STALLS

CONFIGS = {
    "64 bits": preset("tiny"),
    "128 bits, 64 deep": preset("tiny").with_(dram_width=128, fetch_depth=64),
    "512 bits, 19 deep": preset("tiny").with_(dram_width=512, fetch_depth=19),
}


@pytest.mark.parametrize(
    "stall", [pytest.param(p, marks=pytest.mark.slow if p == 0.3 else []) for p in STALLS]
)
@pytest.mark.parametrize("name", CONFIGS)
def test_programs(name: str, stall: float, seed: int) -> None:
    config = CONFIGS[name]
    build(Fetch(config=config), name="fetch").run(
        "tb.bench_fetch",
        parameters={"width": config.dram_width, "depth": config.fetch_depth, "stall": stall},
        seed=seed,
    )
