# SPDX-License-Identifier: Apache-2.0
"""Counters of events, shown at any time, cleared at any time."""

import pytest

from hdl.counters import Counters
from tb.runner import build


@pytest.mark.parametrize("count", [5, 28])
def test_counters(count: int, seed: int) -> None:
    sizes = {"count": count, "width": 12}
    build(Counters(**sizes), name="counters").run("tb.bench_counters", parameters=sizes, seed=seed)
