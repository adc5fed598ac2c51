# SPDX-License-Identifier: Apache-2.0
"""Plots as PNG or SVG files; the same numbers give the same bytes."""

from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from afternorm.accuracy_run import CONVENTIONAL, AccuracyResult
from afternorm.errors import AfternormError
from afternorm.files import write_file

SUFFIXES = (".png", ".svg")
_COLOURS = {"deferred": "#0072b2", CONVENTIONAL: "#e69f00", "interleaved": "#009e73"}
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
    kind = path.suffix.lower().removeprefix(".")
    buffer = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "afternorm"}):
        figure.savefig(
            buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None
        )
    write_file(path, buffer.getvalue())
