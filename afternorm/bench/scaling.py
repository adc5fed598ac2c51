# SPDX-License-Identifier: Apache-2.0
"""Strong scaling: one layer on more and more tiles, and what the reduction tree adds to a row."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from afternorm.bench.layers import TOKENS, hollow_model, published, seeded
from afternorm.bench.results import BenchResult, Label, Panel, Table
from afternorm.bench.subject import Case, Subject
from afternorm.checkpoints import Arch, Floats, Layer, seeded_input
from afternorm.compiler.builder import Builder
from afternorm.compiler.layer import compile_layer
from afternorm.compiler.layer_weights import SCHEDULES, Schedule
from afternorm.config import Config
from afternorm.isa import Scale
from afternorm.job import Job

TILES = (1, 2, 4, 8, 16)
MODEL_TILES = (1, 4, 16, 64, 256, 1024)
RTL_TILES = (1, 2, 4, 8)
RTL_TOKENS = 16
_EPS = 1e-5


def bench_scaling(
    subject: Subject,
    *,
    arch: Arch = "bert",
    tokens: int | None = None,
    source: str | None = None,
    tiles: Sequence[int] | None = None,
) -> BenchResult:
    """A layer on more and more tiles, all else as configured, its weights in the scratchpads.

    Parameters
    ----------
    arch
        Kind of the seeded layer.
    tokens
        Rows; 128 on the model and 16 on RTL by default.
    source
        A published model's name, whose layer's shapes are taken instead, on the model only.
    tiles
        Numbers of tiles: 1 to 16 by default, 1 to 8 on RTL, 1 to 1024 for a published model.

    Raises
    ------
    AfternormError
        If there is no such model, or it cannot be measured on RTL.
    """
    on_model = subject.on == "model"
    tokens = tokens or (TOKENS if on_model else RTL_TOKENS)
    if source is None:
        layer = seeded(subject, arch)
        x = seeded_input(layer, subject.seed, tokens)
        what = f"a seeded {arch} layer"
    else:
        layer = hollow_model(source, published(subject, source), tokens).layers[0]
        x = np.broadcast_to(0.0, (tokens, layer.dim))
        what = f"one layer of {source}"
    result = subject.result("scaling", f"{what}, dimension {layer.dim}, {tokens} tokens")
    if tiles is None:
        tiles = RTL_TILES if not on_model else TILES if source is None else MODEL_TILES
    cases = [
        Case({"T": T}, partial(_layer, layer=layer, x=x), SCHEDULES, {"tiles": T}) for T in tiles
    ]
    subject.measure(result, cases)
    cycles = {(one.labels["T"], one.schedule): one.cycles for one in result.measurements}
    measured = list(dict.fromkeys(T for T, _ in cycles))
    one = measured[0]
    rows: list[tuple[Label | float, ...]] = []
    curves: dict[str, list[tuple[Label, float]]] = {schedule: [] for schedule in SCHEDULES}
    for T in measured:
        speedups = {s: cycles[one, s] / cycles[T, s] for s in SCHEDULES}
        for schedule, speedup in speedups.items():
            curves[schedule].append((T, speedup))
        efficiency = speedups["deferred"] * int(one) / int(T)
        rows.append((T, *speedups.values(), efficiency, tree_cycles(subject, int(T))))
    columns = ("T", *SCHEDULES, "deferred, a tile", "tree, cycles")
    result.tables.append(
        Table(f"speed against T = {one}, and the reduction tree's latency", columns, rows)
    )
    result.panels.append(Panel(result.title, "tiles T", f"speed against T = {one}", curves))
    return result


def tree_cycles(subject: Subject, tiles: int) -> int:
    """What the reduction tree adds to the time of one row's scale."""
    config = subject.config.with_(tiles=tiles)
    with_tree, without = (
        subject.job(_row_scale(config, tree=tree), {"T": tiles}, "none").cycles
        for tree in (True, False)
    )
    return with_tree - without


def _row_scale(config: Config, *, tree: bool) -> Job:
    """Statistics of one block, and its row's scale."""
    b = Builder(config)
    x, stat, scale = b.streamed(1, 1), b.stat_rows(1), b.scale_rows(1)
    b.scan(x, (0, 1), stat, stat_first=1, stat_squares=1)
    b.reduce(Scale.RMS, 1, stat, scale, tree=tree, d=config.block, eps=_EPS)
    return b.job(0)


def _layer(config: Config, schedule: Schedule, *, layer: Layer, x: Floats) -> Job:
    return compile_layer(config, layer, x, schedule)
