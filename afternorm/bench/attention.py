# SPDX-License-Identifier: Apache-2.0
"""The attention core, ``softmax(q kᵀ) v``, of heads back to back."""

from functools import partial

from afternorm.bench.results import BenchResult, Label, Panel
from afternorm.bench.subject import Case, Subject
from afternorm.compiler.kernels import compile_attention
from afternorm.compiler.layer_weights import Schedule
from afternorm.config import Config
from afternorm.job import Job

HEADS = 8
"""Of each tile."""
LENGTHS = (64, 100, 128, 256)
HEAD_DIMS = (32, 48, 96, 128)
"""Beside the usual one, at this length:"""
HEAD_DIMS_LENGTH = 128
SCHEDULES: tuple[Schedule, ...] = ("none", "deferred", "serial")
"""P·V of a head waits for its sums either way, so interleaved is the same program as serial."""


def bench_attention(subject: Subject) -> BenchResult:
    """Eight heads a tile, several lengths and head dimensions, causal or not.

    Causal queries are cut where they need another block of keys, and the ideal counts no others.
    But for fewer queries than the array has columns, a cut would not pay: where the length is no
    multiple of the block, the last ones make a group with some of those before.  A cut that makes
    the array wait longer than it saves is not made either; then the ideal has some keys more.
    """
    result = subject.result(
        "attention",
        f"softmax(q kᵀ) v, {HEADS} heads a tile back to back; interleaved equals serial",
    )
    usual = _usual_head(subject.config)
    shapes = [(S, usual, causal) for S in LENGTHS for causal in (False, True)]
    shapes += [
        (HEAD_DIMS_LENGTH, dim, causal)
        for dim in HEAD_DIMS
        if dim != usual
        for causal in (False, True)
    ]
    cases = [
        Case(
            {"S": S, "head": dim, "causal": "yes" if causal else "no"},
            partial(_attention, S=S, head_dim=dim, causal=causal, seed=subject.seed),
            SCHEDULES,
        )
        for S, dim, causal in shapes
    ]
    subject.measure(result, cases)
    c = subject.config
    constant = c.rows + 2 * c.columns + 13
    result.notes.append(
        f"no schedule avoids R + 2C + 13 = {constant} cycles of the span, which fill and drain the "
        f"array: below {100 * constant:,} ideal cycles they alone are more than 1 %"
    )
    for causal in ("no", "yes"):
        some = [
            one
            for one in result.measurements
            if one.labels["causal"] == causal and one.labels["head"] == usual
        ]
        curves: dict[str, list[tuple[Label, float]]] = {
            schedule: [(m.labels["S"], m.span / m.ideal) for m in some if m.schedule == schedule]
            for schedule in SCHEDULES
        }
        title = f"head dimension {usual}{', causal' if causal == 'yes' else ''}"
        result.panels.append(Panel(title, "rows and keys S", "span / ideal", curves))
    return result


def _usual_head(config: Config) -> int:
    """64, or what fits the accumulator banks that two heads' scores leave."""
    return min(64, (config.acc_banks - 2) * config.acc_width)


def _attention(
    config: Config, schedule: Schedule, *, S: int, head_dim: int, causal: bool, seed: int
) -> Job:
    heads = HEADS * config.tiles
    return compile_attention(config, S, head_dim, heads, causal, schedule=schedule, seed=seed)
