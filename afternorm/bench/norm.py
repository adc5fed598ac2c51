# SPDX-License-Identifier: Apache-2.0
"""What the collective of a normalization costs: serial, interleaved and deferred.

RMSNorm and the linear layer after it, as tiles and row length grow; the picture of arXiv
2502.17728.  Beside it FlashNorm's model of a single row, on units that wait for nothing else.
"""

from functools import partial

from afternorm.bench.flashnorm import flashnorm
from afternorm.bench.results import BenchResult, Label, Panel, Table
from afternorm.bench.subject import Case, Subject
from afternorm.compiler.kernels import compile_norm_linear
from afternorm.compiler.layer_weights import SCHEDULES, Schedule
from afternorm.config import Config
from afternorm.job import Job

TILES = (1, 2, 4, 8, 16, 64, 256, 1024)
ROWS = (256, 1024, 2048, 32768)
"""Row lengths K, with as many columns N, on the model."""
_WEIGHTS = 3 << 18
"""Blocks of weights in a tile, at most; the largest scratchpad is a third larger."""
RTL_ROWS = (32, 64, 128, 256)
TOKENS = 64


def bench_norm(subject: Subject, *, tokens: int | None = None) -> BenchResult:
    """Normalization and linear layer K x K of some rows, on 1 to 1024 tiles.

    On the model, lengths of which a tile has a block at least, and no more than its scratchpad may
    hold.  On RTL, the tiles are those of the configuration: others would have to be built.
    """
    tokens = tokens or TOKENS
    lengths = ROWS if subject.on == "model" else RTL_ROWS
    result = subject.result("norm", f"RMSNorm, then a linear layer K x K, {tokens} rows")
    tiles = TILES if subject.on == "model" else (subject.config.tiles,)
    seed = subject.seed if subject.on == "rtl" else None
    cases = [
        Case(
            {"T": T, "K": K},
            partial(_norm_linear, K=K, M=tokens, seed=seed),
            SCHEDULES,
            {"tiles": T},
        )
        for T in tiles
        for K in lengths
        if subject.on == "rtl" or _fits(subject.config.with_(tiles=T), K)
    ]
    subject.measure(result, cases)
    if len(tiles) > 1:
        _panel(result, "T", "tiles", "K", lengths[-1])
        _panel(result, "T", "tiles", "K", lengths[len(lengths) // 2])
        _panel(result, "K", "row length", "T", tiles[len(tiles) // 3])
    else:
        _panel(result, "K", "row length", "T", tiles[0])
    paper = flashnorm()
    result.tables.append(
        Table(
            f"FlashNorm's model (arXiv 2407.09577), n={paper.n}, m={paper.m}: cycles",
            ("serial", "interleaved", "deferred"),
            [(paper.serial, paper.interleaved, paper.deferred)],
        )
    )
    return result


def _panel(result: BenchResult, x: str, words: str, fixed: str, value: int) -> None:
    """Overheads along one axis."""
    curves: dict[str, list[tuple[Label, float]]] = {
        schedule: [
            (one.labels[x], 100 * (result.overhead(one) or 0.0))
            for one in result.measurements
            if one.schedule == schedule and one.labels[fixed] == value
        ]
        for schedule in SCHEDULES
        if schedule != "none"
    }
    result.panels.append(Panel(f"{fixed} = {value}", words, "cycles above none, %", curves))


def _fits(config: Config, K: int) -> bool:
    """Whether a tile has a block of a row, and its weights may lie in a scratchpad."""
    weights = K // config.tiles * (K // config.block)
    return config.tiles * config.block <= K and weights <= _WEIGHTS


def _norm_linear(config: Config, schedule: Schedule, *, K: int, M: int, seed: int | None) -> Job:
    return compile_norm_linear(config, "rms", K, K, M, schedule=schedule, seed=seed)
