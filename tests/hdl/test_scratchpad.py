# SPDX-License-Identifier: Apache-2.0
"""The scratchpad: every port's reads and writes, priorities, and what is refused."""

import pytest

from afternorm.config import preset
from hdl.interfaces import block_layout
from hdl.memory.scratchpad import Scratchpad
from tb.runner import build

CONFIG = preset("tiny").with_(scratchpad_depth=256)


@pytest.mark.parametrize("activity", [0.05, 0.3])
def test_traffic(activity: float, seed: int) -> None:
    build(Scratchpad(config=CONFIG), name="scratchpad").run(
        "tb.bench_scratchpad",
        parameters={
            "depth": CONFIG.scratchpad_depth,
            "banks": CONFIG.scratchpad_banks,
            "block_bits": block_layout(CONFIG.block).size,
            "activity": activity,
        },
        seed=seed,
    )
