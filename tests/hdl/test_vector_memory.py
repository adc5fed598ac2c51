# SPDX-License-Identifier: Apache-2.0
"""The vector memory: every port's reads and writes, and who goes first."""

import pytest

from afternorm.config import preset
from hdl.memory.vector_memory import VectorMemory
from tb.runner import build

CONFIG = preset("tiny").with_(vector_depth=64)


@pytest.mark.parametrize("activity", [0.1, 0.5])
def test_traffic(activity: float, seed: int) -> None:
    build(VectorMemory(config=CONFIG), name="vector_memory").run(
        "tb.bench_vector_memory",
        parameters={
            "depth": CONFIG.vector_depth,
            "bits": CONFIG.lanes * CONFIG.float_width,
            "activity": activity,
        },
        seed=seed,
    )
