# SPDX-License-Identifier: Apache-2.0
"""Assigns the multipliers of the arrays to those of an LFE5U-85F, neighbours to neighbours.

nextpnr places a multiplier where one is free when its turn comes: a product was on average 35
tiles of the chip away from its adder, and a quarter of all wires was the array's.  With its
multipliers in their places the rest of an element finds its own.
"""

import re
from itertools import product
from typing import Any

_ROWS = (58, 34, 10)
"""Rows of the chip with multipliers; block RAM is in others."""
_BLOCKS = (4, 13, 22, 31, 40, 49, 58, 69, 78, 87, 96, 105, 114)
"""Columns where a block of four multipliers starts."""
_WITHIN = ((0, 0), (1, 1), (4, 4), (5, 5))
"""Of each of the four, column in the block and number."""
_ELEMENT = re.compile(r"(.*)\bpe_(\d+)_(\d+)/")


def place_arrays(module: dict[str, Any]) -> int:
    """Set the places of multipliers of a flat `module` in Yosys's JSON; gives how many.

    Elements follow each other along the rows of their array, and so do multipliers along the rows
    of the chip, to and fro.  An array that is too large stays as it is.
    """
    elements = {}
    for name, cell in module["cells"].items():
        path = name.replace("\\", "")
        if cell["type"] == "MULT18X18D" and (element := _ELEMENT.match(path)):
            array, row, column = element.groups()
            elements[array, int(row), int(column)] = cell
    places = _places(len(elements))
    if len(places) < len(elements):
        return 0
    for (_, cell), place in zip(sorted(elements.items()), places, strict=False):
        cell["attributes"]["BEL"] = place
    return len(elements)


def _places(count: int) -> list[str]:
    """As many places, or some more: the middle of as few rows of the chip as are needed."""
    blocks = -(-count // len(_WITHIN))
    rows = min(len(_ROWS), -(-blocks // len(_BLOCKS)))
    width = min(len(_BLOCKS), -(-blocks // max(1, rows)))
    first = (len(_BLOCKS) - width) // 2
    columns = _BLOCKS[first : first + width]
    return [
        f"X{block + offset}/Y{row}/MULT18_{number}"
        for turn, row in enumerate(_ROWS[:rows])
        for block, (offset, number) in product(columns[:: -1 if turn % 2 else 1], _WITHIN)
    ]
