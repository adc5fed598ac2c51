# SPDX-License-Identifier: Apache-2.0
"""Where the multipliers of an array go."""

import re
from itertools import product
from typing import Any

import pytest

from afternorm.floorplan import place_arrays

OTHERS = {
    name: {"type": kind, "attributes": {}}
    for name, kind in {
        "tile0/vector/lane_0/function/mul_MULT18X18D_P0": "MULT18X18D",
        "tile0/matmul/array/pe_0_0/product_TRELLIS_FF_Q": "TRELLIS_FF",
    }.items()
}


def array(rows: int, columns: int, *, prefix: str = "tile0/matmul/array/") -> dict[str, Any]:
    return {
        f"{prefix}pe_{row}_{column}/product_MULT18X18D_P0": {"type": "MULT18X18D", "attributes": {}}
        for row, column in product(range(rows), range(columns))
    }


@pytest.mark.parametrize(("rows", "columns"), [(8, 2), (8, 8), (16, 8), (32, 4)])
@pytest.mark.parametrize("prefix", ["", "system/tile0/matmul/array/", "$flatten\\tile0/array/"])
def test_neighbours_are_near(rows: int, columns: int, prefix: str) -> None:
    cells = array(rows, columns, prefix=prefix)
    assert place_arrays({"cells": cells | OTHERS}) == rows * columns
    assert not any(cell["attributes"] for cell in OTHERS.values())
    places = [cell["attributes"]["BEL"] for cell in cells.values()]
    assert len(set(places)) == len(places)
    found = [re.fullmatch(r"X(\d+)/Y(\d+)/MULT18_[0145]", place) for place in places]
    at = [(int(place[1]), int(place[2])) for place in found if place]
    assert len(at) == len(places)
    # From an element to the one below it: along a row of the chip, or to the next row.
    for (x, y), (below_x, below_y) in zip(at, at[columns:], strict=False):
        assert (y == below_y and abs(x - below_x) <= 9 * -(-columns // 4) + 7) or (
            y - below_y == 24 and abs(x - below_x) <= 9 * -(-columns // 4)
        )


def test_an_array_that_is_too_large_stays_as_it_is() -> None:
    cells = array(32, 8)
    assert place_arrays({"cells": cells}) == 0
    assert not any(cell["attributes"] for cell in cells.values())
