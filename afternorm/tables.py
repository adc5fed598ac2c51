# SPDX-License-Identifier: Apache-2.0
"""The command line's tables."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from afternorm.config import Config
from afternorm.memory import memory_bits
from afternorm.results import LayerResult
from afternorm.targets import KINDS, TARGETS

if TYPE_CHECKING:  # the report needs Amaranth, which takes a moment to import
    from afternorm.report import Report

WIDTH = 120
"""Of the output where it is no terminal."""

_SIZES = {
    "R=block": "block",
    "C": "columns",
    "T": "tiles",
    "F": "fraction_bits",
    "E": "lanes",
    "M_max": "rows_max",
    "W": "acc_width",
}


def print_presets(presets: Mapping[str, Config]) -> None:
    """Sizes, multipliers and memories of every preset."""
    table = _table("preset", *_SIZES, "MACs", "scratchpad", "acc.", "vector", "all, kbit")
    for name, config in presets.items():
        bits = memory_bits(config)
        sizes = config.to_dict()
        table.add_row(
            name,
            *(str(sizes[size]) for size in _SIZES.values()),
            str(config.macs),
            *(_kbit(bits[memory]) for memory in ("scratchpad", "accumulators", "vector")),
            _kbit(sum(bits.values())),
        )
    _console().print(table)


def print_layer(result: LayerResult) -> None:
    """Cycles, exactness, error and occupation of the engines, a row a schedule."""
    console = _console()
    console.print(
        f"{escape(result.layer)}, {result.tokens} tokens, {escape(result.simulator)}, "
        f"built in {result.build_seconds:.1f} s"
    )
    fastest = min(schedule.cycles for schedule in result.schedules)
    table = _table(
        "schedule", "cycles", "relative", "ideal", "idle slots", "words", "differ", "error", "flags"
    )
    for run in result.schedules:
        table.add_row(
            run.schedule,
            f"{run.cycles:,}",
            f"{run.cycles / fastest:.3f}",
            f"{run.ideal:,}",
            f"{run.idle_slots:,}",
            f"{run.words:,}",
            str(run.mismatches),
            f"{run.error:.5f}",
            ", ".join(run.flags) or "-",
        )
    console.print(table)

    table = _table("engine", "schedule", "busy", "of all", "waiting", "starved", "stalled")
    for engine in result.schedules[0].engines:
        for number, run in enumerate(result.schedules):
            cycles = run.engines[engine]
            table.add_row(
                "" if number else engine,
                run.schedule,
                f"{cycles.busy:,}",
                f"{cycles.busy / run.cycles:.1%}",
                f"{cycles.waiting:,}",
                f"{cycles.starved:,}",
                f"{cycles.stalled:,}",
            )
    console.print(table)
    for path in result.waves:
        console.print(f"trace: {escape(str(path))}", soft_wrap=True)


def print_report(report: "Report", *, macs: int | None, depth: int) -> None:
    """Resources down to `depth`; then those of a MAC, if there are `macs`, and normalization's."""
    target = TARGETS[report.target]
    heads = ["LUT", "LUT RAM", "FF", target.carry, "DSP", "BRAM"]
    table = _table(f"{target.device}, by hierarchy", "", *heads)
    for level, node in report.root.walk():
        if level <= depth:
            table.add_row(
                "  " * level + escape(node.name),
                f"x{node.count}" if node.count > 1 else "",
                *(f"{node.resources[kind]:,g}" for kind in KINDS),
            )
    total = report.root.resources
    if macs is not None:
        table.add_section()
        table.add_row("per MAC", f"/{macs}", *(f"{total[kind] / macs:.1f}" for kind in KINDS))
    if report.normalization != total and any(report.normalization.values()):
        table.add_section()
        amounts = (f"{report.normalization[kind]:,g}" for kind in KINDS)
        shares = (
            f"{report.normalization[kind] / total[kind]:.1%}" if total[kind] else "-"
            for kind in KINDS
        )
        table.add_row("normalization", "", *amounts)
        table.add_row("its share", "", *shares)
    _console().print(table)
    if report.other:
        cells = ", ".join(f"{number} {cell}" for cell, number in report.other.items())
        _console().print(f"not counted: {escape(cells)}")


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for head in others:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _kbit(bits: int) -> str:
    return f"{bits / 1024:,.0f}"


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)
