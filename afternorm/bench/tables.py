# SPDX-License-Identifier: Apache-2.0
"""A benchmark's tables on the terminal."""

from rich.markup import escape

from afternorm.bench.results import BenchResult, Label
from afternorm.results import lost_in_all, lost_to
from afternorm.tables import _console, _table

_WIDEST = 200
"""Columns of a file that a table may take, before what is in it is cut."""


def print_bench(result: BenchResult) -> None:
    """What was measured, a row a measurement; then the other tables, and notes."""
    out = _console()
    where = "RTL" if result.on == "rtl" else "model of the RTL's time"
    hops = f", hop latency {result.hop_latency}" if result.hop_latency else ""
    out.print(
        f"{escape(result.name)}: {escape(result.title)}; {escape(result.configuration)}, {where}"
        f"{hops}",
        soft_wrap=True,
    )
    if result.measurements:
        _print_measurements(result)
    for other in result.tables:
        out.print(escape(other.heading), soft_wrap=True)
        shown = _table(*other.columns)
        for row in other.rows:
            shown.add_row(*(_text(value) for value in row))
        out.print(shown)
    for note in result.notes:
        out.print(f"- {escape(note)}", soft_wrap=True)


def _print_measurements(result: BenchResult) -> None:
    some = result.measurements
    scheduled = len({one.schedule for one in some}) > 1
    bounded = any(one.bound for one in some)
    compared = any(one.differ is not None for one in some)
    columns = [*some[0].labels]
    columns += ["schedule"] * scheduled
    batched = any(one.batch > 1 for one in some)
    columns += ["cycles"] + ["a token"] * batched + ["+"] * scheduled
    columns += ["bound", "of bound"] if bounded else ["ideal", "span/ideal", "useful/span"]
    columns += ["useful", "padded", "idle"] + ["differ"] * compared
    shown = _table(*columns)
    previous: dict[str, Label] = {}
    for one in some:
        overhead = result.overhead(one)
        row = ["" if one.labels == previous else _text(label) for label in one.labels.values()]
        previous = one.labels
        if scheduled:
            row.append(one.schedule)
        row.append(f"{one.cycles:,}")
        if batched:
            row.append(f"{one.a_token:,.0f}")
        if scheduled:
            row.append("" if overhead is None or one.schedule == "none" else f"{overhead:+.2%}")
        if bounded:
            row += [f"{one.bound:,}", f"{one.of_bound:.1%}"]
        else:
            row += [f"{one.ideal:,}", _ratio(one.span, one.ideal), f"{one.useful_span:.1%}"]
        row += [f"{one.useful:.1%}", f"{one.padded:.1%}", f"{one.idle_slots:,}"]
        if compared:
            row.append("-" if one.differ is None else str(one.differ))
        shown.add_row(*row)
    console = _console()
    if not console.is_terminal:
        whole = console.options.update(max_width=_WIDEST)
        console.width = max(console.width, console.measure(shown, options=whole).maximum)
    console.print(shown)
    for schedule in dict.fromkeys(one.schedule for one in some):
        slots = lost_in_all(one.lost for one in some if one.schedule == schedule)
        name = f"{schedule}: " if scheduled else ""
        console.print(f"{name}{lost_to(slots)}")


def _ratio(value: int, base: int) -> str:
    return f"{value / base:.3f}" if base else "-"


def _text(value: Label | float) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if value < 1000 else f"{value:,.0f}"
    return value if isinstance(value, str) else f"{value:,}"
