# SPDX-License-Identifier: Apache-2.0
"""Plots as PNG or SVG files; the same numbers give the same bytes."""

from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from afternorm.accuracy_run import CONVENTIONAL, AccuracyResult
from afternorm.bench.results import BenchResult, Panel
from afternorm.errors import AfternormError
from afternorm.files import write_file

SUFFIXES = (".png", ".svg")
_COLOURS: dict[str, str] = {
    "deferred": "#0072b2",
    CONVENTIONAL: "#e69f00",
    "interleaved": "#009e73",
}
"""Of Okabe and Ito: they differ for colour-blind readers, too."""
_LOGARITHMIC = 20.0
"""Losses that differ by more than this factor get a logarithmic axis."""


def check_plot(path: Path) -> None:
    """Raise AfternormError if a plot cannot be written there, before work is done for it."""
    if path.suffix.lower() not in SUFFIXES:
        raise AfternormError(f"--plot: {path} must end in {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise AfternormError(f"--plot: there is no folder {path.parent}")


def plot_accuracy(result: AccuracyResult, path: Path) -> None:
    """Bars of what each format loses, with its standard error, the schedules side by side.

    Raises
    ------
    AfternormError
        As `check_plot`.
    """
    check_plot(path)
    pairs = list(dict.fromkeys((a.block, a.fraction_bits) for a in result.formats))
    schedules = list(dict.fromkeys(a.schedule for a in result.formats))
    losses = {(a.block, a.fraction_bits, a.schedule): a for a in result.formats}
    least, most = (f(a.excess for a in result.formats) for f in (min, max))
    figure = Figure(figsize=(max(6.4, 1.6 + 1.3 * len(pairs)), 4.4), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(schedules)
    for number, schedule in enumerate(schedules):
        at = [place + (number - (len(schedules) - 1) / 2) * width for place in range(len(pairs))]
        label = f"{schedule} (conventional)" if schedule == CONVENTIONAL else schedule
        some = [losses[(*pair, schedule)] for pair in pairs]
        heights = [accuracy.excess for accuracy in some]
        errors = [accuracy.uncertainty or 0.0 for accuracy in some]
        bars = axes.bar(
            at,
            heights,
            0.92 * width,
            yerr=errors,
            label=label,
            color=_COLOURS[schedule],
            error_kw={"elinewidth": 0.8},
        )
        axes.bar_label(bars, labels=[f"{height:.2g}" for height in heights], fontsize=8, padding=2)
    axes.set_xticks(range(len(pairs)), [f"block {block}\nF {bits}" for block, bits in pairs])
    if least > 0 and most > _LOGARITHMIC * least:
        axes.set_yscale("log")
    else:
        axes.axhline(0, color="black", linewidth=0.8)
    axes.margins(y=0.15)
    axes.set_ylabel(
        "NLL above float64's, nats a token" if result.decodes else "mean of 1 - cosine to float64"
    )
    tokens = f"{result.count:,} {'tokens' if result.decodes else 'texts'}"
    axes.set_title(
        f"{result.model}, {tokens}, accelerator {result.configuration}", parse_math=False
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4)
    axes.set_axisbelow(True)
    figure.legend(frameon=False, loc="outside lower center", ncols=len(schedules))
    _save(figure, path)


def plot_bench(result: BenchResult, path: Path) -> None:
    """The panels of a benchmark, side by side.

    Raises
    ------
    AfternormError
        As `check_plot`.
    """
    check_plot(path)
    count = len(result.panels)
    figure = Figure(figsize=(max(6.4, 5.2 * count), 4.4), layout="constrained")
    for number, panel in enumerate(result.panels):
        axes = figure.add_subplot(1, count, number + 1)
        (_draw_bars if panel.bars else _draw_curves)(axes, panel)
        axes.set_title(panel.title, parse_math=False, fontsize=10)
        axes.set_xlabel(panel.x)
        axes.set_ylabel(panel.y)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", linewidth=0.4)
        axes.set_axisbelow(True)
        if len(panel.curves) > 1:
            axes.legend(frameon=False)
    where = "RTL" if result.on == "rtl" else "model"
    figure.suptitle(f"{result.name}: accelerator {result.configuration}, {where}")
    _save(figure, path)


def _draw_curves(axes: Axes, panel: Panel) -> None:
    """Points joined by lines; sizes that double get a logarithmic axis."""
    for number, (name, points) in enumerate(panel.curves.items()):
        axes.plot(
            [float(x) for x, _ in points],
            [y for _, y in points],
            marker="o.sx^"[number % 5],
            # Curves may lie upon each other: then the later ones show the earlier through.
            linestyle=("-", "--", "-.", ":")[number % 4],
            color=_COLOURS.get(name, f"C{number}"),
            label=name,
        )
    places = sorted({float(x) for points in panel.curves.values() for x, _ in points})
    if places and places[0] > 0 and places[-1] >= 4 * places[0]:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xticks(places)
    if all(y >= 0 for points in panel.curves.values() for _, y in points):
        axes.set_ylim(bottom=0)


def _draw_bars(axes: Axes, panel: Panel) -> None:
    """Bars of the same name side by side."""
    names = list(dict.fromkeys(x for points in panel.curves.values() for x, _ in points))
    width = 0.8 / len(panel.curves)
    for number, (name, points) in enumerate(panel.curves.items()):
        shift = (number - (len(panel.curves) - 1) / 2) * width
        bars = axes.bar(
            [names.index(x) + shift for x, _ in points],
            [y for _, y in points],
            0.92 * width,
            label=name,
            color=_COLOURS.get(name, f"C{number}"),
        )
        axes.bar_label(bars, labels=[f"{y:.3g}" for _, y in points], fontsize=8, padding=2)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.margins(y=0.15)
    axes.set_xticks(range(len(names)), [str(name) for name in names])


def _save(figure: Figure, path: Path) -> None:
    """Write a figure; the same one gives the same bytes."""
    kind = path.suffix.lower().removeprefix(".")
    buffer = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "afternorm"}):
        figure.savefig(
            buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None
        )
    write_file(path, buffer.getvalue())
