# SPDX-License-Identifier: Apache-2.0
"""The command line's tables."""

from collections.abc import Mapping, Sequence
from math import exp
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from afternorm.config import Config
from afternorm.memory import memory_bits
from afternorm.results import (
    LayerResult,
    ModelResult,
    ModelRun,
    ProgramResult,
    lost_in_all,
    lost_to,
)
from afternorm.targets import KINDS, TARGETS

if TYPE_CHECKING:  # they need the compiler and Amaranth, which take a moment to import
    from afternorm.accuracy_run import AccuracyResult
    from afternorm.pnr import Timing
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
    for run in result.schedules:
        console.print(f"{run.schedule}: {lost_to(run.lost)}")

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


def print_model(result: ModelResult, config: Config) -> None:
    """What a model cost, a row a schedule; for encoders, first how alike the texts are."""
    console = _console()
    if result.texts and result.texts[0].embedding is not None:
        _print_similarities(console, result)
    if not result.runs:
        return
    first = result.runs[0]
    places = {
        (True, True): "weights and caches stay in the tiles",
        (False, True): "weights stream from DRAM, caches stay in the tiles",
        (False, False): "weights stream from DRAM, caches lie there",
    }
    parts = ", ".join(f"{name} {size:,}" for name, size in first.regions.items())
    console.print(
        f"{escape(result.model)}, {result.backend}: {places[first.resident, first.cached]}; "
        f"bytes of DRAM: {parts}"
    )
    timed = result.backend in ("rtl", "uart")
    table = _table(
        "schedule", "cycles", "per token", "relative", "tokens/s", "MACs used", "instr.",
        "DRAM bytes", "words", "differ", "flags",
    )  # fmt: skip
    fastest = min(_per_token(run) for run in result.runs)
    for run in result.runs:
        cycles, each = sum(_cycles(program) for program in run.programs), _per_token(run)
        macs = sum(program.macs for program in run.programs)
        table.add_row(
            run.schedule,
            f"{cycles:,}",
            f"{each:,.0f}",
            f"{each / fastest:.3f}",
            f"{1e6 * result.clock / each:,.0f}",
            f"{macs / (cycles * config.macs):.1%}",
            f"{sum(program.instructions for program in run.programs):,}",
            f"{sum(program.dram_bytes for program in run.programs):,}",
            f"{run.words:,}",
            str(run.mismatches),
            ", ".join(run.flags) or "-",
        )
    console.print(table)
    if timed:
        table = _table("busy", *(run.schedule for run in result.runs))
        for engine in first.prologue.engines:
            busy = [sum(program.engines[engine] for program in run.programs) for run in result.runs]
            total = [sum(program.cycles for program in run.programs) for run in result.runs]
            shares = (f"{b:,} ({b / t:.1%})" for b, t in zip(busy, total, strict=True))
            table.add_row(engine, *shares)
        predicted = (f"{sum(p.predicted for p in run.programs):,}" for run in result.runs)
        table.add_section()
        table.add_row("cycles, predicted", *predicted)
        console.print(table)
    for run in result.runs:
        slots = lost_in_all(program.lost for program in run.programs)
        console.print(f"{run.schedule}: {lost_to(slots)}")
    if not first.resident:
        traffic = (f"{run.schedule} {_traffic(run):.3f}" for run in result.runs)
        console.print(f"bytes of DRAM, over those of the data, each once: {', '.join(traffic)}")
    known = "" if timed else "cycles are predicted; "
    console.print(
        f"{known}tokens/s at {result.clock:g} MHz; to load what stays takes "
        f"{_cycles(first.prologue):,} cycles, once; built in {first.build_seconds:.1f} s, run in "
        f"{sum(run.seconds for run in result.runs):.1f} s"
    )


def _cycles(program: ProgramResult) -> int:
    """Measured on the RTL; else predicted."""
    return program.cycles or program.predicted


def _traffic(run: ModelRun) -> float:
    """Bytes of DRAM that were moved, programs included, for one that had to be."""
    moved = sum(program.dram_bytes for program in run.programs)
    return moved / sum(program.dram_needed for program in run.programs)


def _per_token(run: ModelRun) -> float:
    """Mean cycles of the programs of a single token, or else of a token of them all."""
    programs = run.steps or run.programs
    return sum(_cycles(p) for p in programs) / sum(p.rows for p in programs)


def _print_similarities(console: Console, result: ModelResult) -> None:
    """The cosines between the texts' embeddings."""
    table = _table("cosine", *(str(number + 1) for number in range(len(result.texts))), "text")
    vectors = np.array([text.embedding for text in result.texts])
    for number, (row, text) in enumerate(zip(vectors @ vectors.T, result.texts, strict=True)):
        table.add_row(str(number + 1), *(f"{cosine:.3f}" for cosine in row), escape(text.text))
    console.print(table)


def print_accuracy(result: "AccuracyResult") -> None:
    """What each format loses, with its standard error; a row a format and schedule."""
    console = _console()
    head = f"{escape(result.model)}, {escape(result.configuration)}, {result.texts:,} texts"
    if result.decodes:
        console.print(
            f"{head}, {result.count:,} predicted tokens; float64: NLL {result.reference:.4f}, "
            f"perplexity {exp(result.reference):.4f}"
        )
        columns = ["NLL", "perplexity", "excess", "+-", "worst text"]
    else:
        console.print(f"{head}; cosine to float64's embeddings")
        columns = ["1 - cosine, mean", "+-", "largest", "smallest cosine"]
    table = _table("block", "F", "schedule", *columns, "of conventional", "flags")
    for accuracy in result.formats:
        ratio, error = result.ratio(accuracy), accuracy.uncertainty
        if result.decodes:
            numbers = [
                f"{accuracy.loss:.4f}",
                f"{exp(accuracy.loss):.4f}",
                f"{accuracy.excess:+.5f}",
                "-" if error is None else f"{error:.5f}",
                f"{accuracy.worst:+.5f}",
            ]
        else:
            numbers = [
                f"{accuracy.loss:.3e}",
                "-" if error is None else f"{error:.1e}",
                f"{accuracy.worst:.3e}",
                f"{1 - accuracy.worst:.6f}",
            ]
        table.add_row(
            str(accuracy.block),
            str(accuracy.fraction_bits),
            accuracy.schedule,
            *numbers,
            "-" if ratio is None else f"{ratio:.3f}",
            ", ".join(accuracy.flags) or "-",
        )
    console.print(table)


def print_report(report: "Report", *, macs: int | None, depth: int) -> None:
    """Resources down to `depth`; then those of a MAC, if there are `macs`, and normalization's.

    Every row tells which share of the device's LUTs it takes, and one row all shares.
    """
    target, device = TARGETS[report.target], report.device
    heads = ["LUT", "LUT RAM", "FF", target.carry, "DSP", "BRAM", f"LUTs of {device.name}"]
    table = _table(f"{target.device}, by hierarchy", "", *heads)
    for level, node in report.root.walk():
        if level <= depth:
            table.add_row(
                "  " * level + escape(node.name),
                f"x{node.count}" if node.count > 1 else "",
                *(f"{node.resources[kind]:,.10g}" for kind in KINDS),
                f"{device.utilization(node.resources)['lut']:.1%}",
            )
    total = report.root.resources
    used = device.utilization(total)
    table.add_section()
    shares = (f"{used[kind]:.1%}" if kind in used else "" for kind in KINDS)
    table.add_row(f"of {device.name}", "", *shares)
    if macs is not None:
        table.add_section()
        table.add_row("per MAC", f"/{macs}", *(f"{total[kind] / macs:.1f}" for kind in KINDS))
    if report.normalization != total and any(report.normalization.values()):
        table.add_section()
        amounts = (f"{report.normalization[kind]:,.10g}" for kind in KINDS)
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


def print_timings(timings: "Sequence[Timing]", *, device: str) -> None:
    """Frequency of every seed, and the critical path of the fastest."""
    fastest = max(timings, key=lambda timing: timing.fmax)
    table = _table(f"{device}, out of context", "MHz", "ns", "logic", "routing", "")
    for timing in timings:
        table.add_row(
            f"seed {timing.seed}",
            f"{timing.fmax:.1f}",
            f"{1000 / timing.fmax:.2f}",
            f"{timing.logic:.2f}",
            f"{timing.routing:.2f}",
            "best" if timing is fastest else "",
        )
    _console().print(table)
    table = _table(f"critical path of seed {fastest.seed}", "cells", "logic, ns", "routing, ns")
    for step in fastest.path:
        unit = f"{escape(step.unit)}: " if step.unit else ""
        table.add_row(
            f"{unit}{escape(step.part)}",
            str(step.cells),
            f"{step.logic:.2f}",
            f"{step.routing:.2f}",
        )
    _console().print(table)


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
