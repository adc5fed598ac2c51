# SPDX-License-Identifier: Apache-2.0
"""What an exploration looks like: tables of its points, and a plot."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.markup import escape

from afternorm.explore.explore import Exploration, Point
from afternorm.plots import _COLOURS, _LOGARITHMIC, _save, check_plot
from afternorm.tables import WIDTH, _console, _table
from afternorm.targets import TARGETS

_LABELS = {
    "cycles": "cycles",
    "lut": "LUT",
    "lutram": "LUT RAM",
    "ff": "FF",
    "carry": "carry",
    "dsp": "DSP",
    "bram": "BRAM",
    "macs": "MACs",
    "memory_bits": "memory bits",
    "error": "error",
    "loss": "loss",
}
_FEW = 1e-3
"""Errors below are printed with an exponent."""


def print_exploration(result: Exploration) -> None:
    """All points, the front first, by the objectives; then those that have no scores, and why."""
    console = _console()
    # A narrow terminal breaks lines; numbers are not cut.
    console.width = max(console.width, WIDTH)
    space, done = result.space, result.done
    front = sum(point.front for point in done)
    parts = [f"{len(result.points)} points", f"{front} on the Pareto front"]
    for status in ("impossible", "failed"):
        if number := sum(point.status == status for point in result.points):
            parts.append(f"{number} {status}")
    console.print(
        f"{escape(space.name)}: {', '.join(parts)}; {result.evaluated} scores evaluated, "
        f"{result.known} known"
    )
    what = _columns(result)
    if done:
        scores = _scores(result)
        table = _table("front", *what, *(head for head, _ in scores))
        before = True
        for point in done:
            if before and not point.front:
                table.add_section()
            before = point.front
            names = (get(point) for get in what.values())
            table.add_row("*" if point.front else "", *names, *(text(point) for _, text in scores))
        console.print(table)
    if result.others:
        table = _table("status", *what)
        table.add_column("reason", overflow="fold")
        for point in result.others:
            names = (get(point) for get in what.values())
            table.add_row(point.status, *names, escape(point.reason))
        console.print(table)
    if "area" in space.scores:
        console.print(f"area of {space.unit} on {TARGETS[space.target].device}")
    console.print(f"front: no other point is better in {', '.join(_names(result))} together")


def _names(result: Exploration) -> list[str]:
    return [_LABELS[name] for name in result.space.objectives]


def _columns(result: Exploration) -> dict[str, Callable[[Point], str]]:
    """What tells points from each other."""
    space = result.space
    columns: dict[str, Callable[[Point], str]] = {}
    if len(space.presets) > 1:
        columns["preset"] = lambda point: point.preset
    for name in space.swept:
        if len({point.sizes[name] for point in result.points}) > 1:
            columns[name] = lambda point, name=name: str(point.sizes[name])  # type: ignore[misc]
    if len(space.schedules) > 1:
        columns["schedule"] = lambda point: point.schedule
    return columns


def _scores(result: Exploration) -> list[tuple[str, Callable[[Point], str]]]:
    """Columns of scores: what a reader of a table of accelerators looks for, and all objectives."""
    space = result.space
    usual = ["cycles", "used", "macs", *(["lut", "ff", "dsp", "bram"] * ("area" in space.scores))]
    names = dict.fromkeys([*usual, *space.objectives, "error", "loss"])
    there = [name for name in names if all(name in point.scores for point in result.done)]
    return [(_LABELS.get(name, "MACs used"), _formatted(name)) for name in there]


def _formatted(name: str) -> Callable[[Point], str]:
    def text(point: Point) -> str:
        value = point.scores[name]
        if name == "used":
            return f"{value:.1%}"
        if name in ("error", "loss"):
            return f"{value:.2e}" if 0 < abs(value) < _FEW else f"{value:.5f}"
        return f"{value:,g}" if value % 1 else f"{value:,.0f}"

    return text


def plot_exploration(result: Exploration, path: Path) -> None:
    """Points by the first objective and each of the others; those on the front are filled.

    Raises
    ------
    AfternormError
        As `afternorm.plots.check_plot`.
    """
    check_plot(path)
    first, *others = result.space.objectives
    others = others or [first]
    figure = Figure(figsize=(1.2 + 4.4 * len(others), 4.4), layout="constrained")
    for number, other in enumerate(others, 1):
        axes = figure.add_subplot(1, len(others), number)
        _scatter(axes, result, first, other, labelled=number == 1)
    figure.suptitle(result.space.name, parse_math=False)
    if result.done:
        figure.legend(frameon=False, loc="outside lower center", ncols=6)
    _save(figure, path)


def _scatter(axes: Axes, result: Exploration, x: str, y: str, *, labelled: bool) -> None:
    for schedule in result.space.schedules:
        for front in (False, True):
            some = [p for p in result.done if p.schedule == schedule and p.front == front]
            if not some:
                continue
            label = f"{schedule}, front" if front else schedule
            axes.scatter(
                [point.scores[x] for point in some],
                [point.scores[y] for point in some],
                s=28,
                facecolors=_COLOURS[schedule] if front else "none",
                edgecolors=_COLOURS[schedule],
                linewidths=1.0,
                label=label if labelled else "_",
                zorder=3 if front else 2,
            )
    for name, scale in ((x, axes.set_xscale), (y, axes.set_yscale)):
        values = [point.scores[name] for point in result.done]
        if values and max(values) > _LOGARITHMIC * min(values) > 0:
            scale("log")
    axes.set_xlabel(_LABELS[x])
    axes.set_ylabel(_LABELS[y])
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(linewidth=0.4)
    axes.set_axisbelow(True)
