# SPDX-License-Identifier: Apache-2.0
"""The ways to DRAM: whose beat is whose, and nothing left over from before a reset."""

import pytest

from afternorm.config import preset
from hdl.dma.arbiter import ReadArbiter
from hdl.dma.guard import WriteGuard
from tb.runner import build
from tb.stream import STALLS

TINY = preset("tiny")


@pytest.mark.parametrize("stall", STALLS)
def test_arbiter(stall: float, seed: int) -> None:
    build(ReadArbiter(config=TINY, ports=2), name="arbiter").run(
        "tb.bench_dram_port",
        parameters={"stall": stall, "width": TINY.dram_width},
        testcase="arbiter",
        seed=seed,
    )


@pytest.mark.parametrize("stall", STALLS)
def test_guard(stall: float, seed: int) -> None:
    build(WriteGuard(config=TINY), name="guard").run(
        "tb.bench_dram_port",
        parameters={"stall": stall, "width": TINY.dram_width},
        testcase="guard",
        seed=seed,
    )
