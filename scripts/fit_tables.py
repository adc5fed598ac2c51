# SPDX-License-Identifier: Apache-2.0
"""Fits the table of the vector functions and writes `golden/function_rom.py`.

Run as ``python scripts/fit_tables.py``; with ``--check`` it compares instead.
Segment by segment the quadratic through the three Chebyshev points is rounded,
and the integer coefficients around it are tried: taken are those with the
smallest largest error, over all places of the segment and with the very
integer arithmetic of the hardware, among those for which the table neither
falls within the segment nor at its start.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
OUTPUT = Path(__file__).resolve().parents[1] / "golden" / "function_rom.py"

from golden.number import Floats  # noqa: E402
from golden.tables import (  # noqa: E402
    C0_BITS,
    C1_BITS,
    C2_BITS,
    G_BITS,
    PLACE_BITS,
    SEGMENTS,
    Part,
    pack_entry,
    polynomial,
)

PLACES = 1 << PLACE_BITS

_erf = np.frompyfunc(math.erf, 1, 1)

FUNCTIONS: dict[Part, Callable[[Floats], Floats]] = {
    Part.SIGMOID: lambda t: 1.0 / (1.0 + np.exp(-(t + 0.5) * 2.0**-15)),
    Part.PHI: lambda t: 0.5 + 0.5 * _erf((t + 0.5) * 2.0**-16 / math.sqrt(2.0)).astype(float),
    # Arguments of EXP come in steps of four places.
    Part.EXP: lambda t: np.exp2((t + 2.0) * 2.0**-18 - 1.0),
    Part.RECIP: lambda t: 1.0 / (2.0 - (t + 1.0) * 2.0**-18),
    Part.RSQRT: lambda t: 1.0 / np.sqrt(2.0 - (t + 1.0) * 2.0**-17),
    Part.RSQRT2: lambda t: 1.0 / np.sqrt(2.0 * (2.0 - (t + 1.0) * 2.0**-17)),
    Part.HALF: lambda t: np.full(t.shape, 0.5),
}

FIRST = {Part.SIGMOID: 0.5, Part.EXP: 0.5}
LAST = {Part.RECIP: 1.0, Part.RSQRT: 1.0}
"""Ends that must be exact: sigmoid(0), exp(0), 1 / 1, 1 / sqrt(1)."""


def around(value: float, spread: int) -> list[int]:
    """Integers next to `value`, and `spread` more on both sides."""
    low = math.floor(value)
    return list(range(low - spread, low + 2 + spread))


def fit_segment(
    g: Floats, step: int, *, floor: int, first: int | None, last: int | None
) -> tuple[tuple[int, int, int], int, float]:
    """Coefficients for the values `g` (times 2**18), the last value, and the largest error.

    `floor` is the least value allowed; `first` and `last` are values that must be met.
    """
    place = np.arange(0, PLACES, step)
    g = g[::step]
    x = place / PLACES - 0.5
    chebyshev = [(1.0 - math.cos(math.pi * (2 * k + 1) / 6)) / 2 for k in range(3)]
    nodes = [int(node * (len(place) - 1)) for node in chebyshev]
    slope, curve = np.linalg.solve(np.vander(x[nodes], 3, increasing=True), g[nodes])[1:]
    best = None
    for spread in range(4):
        candidates = itertools.product(around(curve / 4, spread), around(slope / 2, spread))
        for c2, c1 in candidates:
            if not 0 <= c1 < 1 << C1_BITS or not -1 << (C2_BITS - 1) <= c2 < 1 << (C2_BITS - 1):
                continue
            base = polynomial(0, c1, c2, place)
            if np.diff(base).min() < 0:
                continue
            error = g - base
            for c0 in around((error.max() + error.min()) / 2, spread):
                c0 = min(c0, (1 << G_BITS) - 1)
                y = base + c0
                if y[0] < floor or y[-1] > 1 << G_BITS:
                    continue
                if first not in (None, y[0]) or last not in (None, y[-1]):
                    continue
                worst = float(np.abs(g - y).max())
                if best is None or worst < best[2]:
                    best = (c0, c1, c2), int(y[-1]), worst
        if best is not None:
            return best
    raise AssertionError("no monotonic segment")


def fit() -> tuple[list[int], dict[Part, float]]:
    """All entries in order, and the largest absolute error of each part."""
    entries: list[int] = []
    errors = {}
    for part, segments in SEGMENTS.items():
        assert len(entries) == part
        t = np.arange(segments * PLACES, dtype=float).reshape(segments, PLACES)
        g = FUNCTIONS[part](t) * (1 << G_BITS)
        floor, worst = 1 << C0_BITS, 0.0
        for segment in range(segments):
            first, last = None, None
            if segment == 0 and part in FIRST:
                first = int(FIRST[part] * (1 << G_BITS))
            if segment == segments - 1 and part in LAST:
                last = int(LAST[part] * (1 << G_BITS))
            coefficients, floor, error = fit_segment(
                g[segment], 4 if part == Part.EXP else 1, floor=floor, first=first, last=last
            )
            entries.append(pack_entry(*coefficients))
            worst = max(worst, error)
        errors[part] = worst / (1 << G_BITS)
    return entries, errors


def text(entries: list[int]) -> str:
    """The generated module."""
    lines = [
        "# SPDX-License-Identifier: Apache-2.0",
        '"""Entries of the table of the vector functions, made by `scripts/fit_tables.py`."""',
        "",
        "# fmt: off",
        "ROM = (",
    ]
    for n in range(0, len(entries), 6):
        lines.append("    " + " ".join(f"0x{entry:09X}," for entry in entries[n : n + 6]))
    return "\n".join([*lines, ")", ""])


def main() -> None:
    """Fit, report and write or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    arguments = parser.parse_args()
    entries, errors = fit()
    for part, error in errors.items():
        print(f"{part.name:8} largest error {f'2**{math.log2(error):.2f}' if error else '0'}")
    if not arguments.check:
        OUTPUT.write_text(text(entries))
    elif OUTPUT.read_text() != text(entries):
        raise SystemExit(f"{OUTPUT} is not what this script makes")


if __name__ == "__main__":
    main()
