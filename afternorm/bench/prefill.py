# SPDX-License-Identifier: Apache-2.0
"""Prefill of layers of published models' shapes, on 1 to 1024 tiles.

Decoders take a prompt in chunks, one program each, that find the keys and values of those before
them in the caches; encoders take texts, one after the other.  Weights are zeros that take no
memory; they stream from DRAM where they do not fit beside what else the layer needs.
"""

import os
from collections.abc import Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from afternorm.bench.layers import (
    PUBLISHED,
    TOKENS,
    Shape,
    hollow_model,
    place_of,
    programs_time,
    published,
)
from afternorm.bench.results import BenchResult, Label, Measurement, Panel
from afternorm.bench.subject import Subject, enlarged
from afternorm.compiler.layer_weights import SCHEDULES, Schedule
from afternorm.compiler.model import ModelCompiler, ModelProgram
from afternorm.config import Config
from afternorm.errors import AfternormError, CapacityError, ConfigError
from afternorm.progress import progress
from afternorm.workers import worker_pool

_TEXT = 512
"""The most tokens of an encoder's text: it has no more learned positions."""
_CHUNKS = 3
"""Chunks of a prompt that are timed, the first, the last, and between."""


@dataclass(frozen=True)
class _Case:
    """A layer that is measured under all schedules, for all numbers of tokens.

    Attributes
    ----------
    name, shape : of the model.
    tokens : numbers of them.
    tiles : how many.
    """

    name: str
    shape: Shape
    tokens: tuple[int, ...]
    tiles: int

    @property
    def encodes(self) -> bool:
        """Whether it takes texts, not a prompt."""
        return self.shape.arch == "bert"


@dataclass(frozen=True)
class _Measured:
    """What was measured of a case.

    Attributes
    ----------
    config : with memories that were large enough.
    measurements : by tokens.
    reasons : by tokens, why the others are left out.
    """

    config: Config
    measurements: dict[int, list[Measurement]]
    reasons: dict[int, str]


def bench_prefill(
    subject: Subject,
    names: Sequence[str],
    *,
    tokens: Sequence[int] = (TOKENS,),
    tiles: Sequence[int] | None = None,
) -> BenchResult:
    """One layer of each model, for each number of tokens and of tiles, under all schedules.

    A model on so many tiles has the memories that its largest number of tokens needs, and so large
    that weights stay in all cases or in none, if that is possible.  Numbers of tiles are measured
    side by side, in as many processes as there are cores.

    Parameters
    ----------
    names
        Of published models.
    tokens
        Of a decoder's prompt; an encoder gets them in texts of 512 at most.
    tiles
        Numbers of tiles, by default the configuration's.

    Raises
    ------
    AfternormError
        If there is no such model, it is to be measured on RTL, or nothing fits.
    """
    shapes = {name: published(subject, name) for name in names}
    counts = ", ".join(f"{count:,}" for count in tokens)
    result = subject.result("layer", f"one layer of {', '.join(shapes)}, {counts} tokens")
    some = [subject.config.tiles] if tiles is None else tiles
    cases = [_Case(name, shape, tuple(tokens), T) for name, shape in shapes.items() for T in some]
    measured = dict(zip(cases, _measure_all(subject, cases), strict=True))
    for case, one in measured.items():
        for count, reason in one.reasons.items():
            subject.skip({"layer": case.name, "tokens": count, "T": case.tiles}, reason)
        if one.measurements:
            subject.note_memories(one.config)
    for name, count in product(shapes, tokens):
        for case, one in measured.items():
            if case.name == name:
                result.measurements += one.measurements.get(count, [])
    if not result.measurements:
        raise CapacityError(f"none of the work fits: {'; '.join(subject.notes())}")
    result.notes += subject.notes()
    result.notes.append("chunk: tokens that a program takes at once, of a prompt or a text")
    if any(shape.arch != "bert" for shape in shapes.values()):
        result.notes.append(
            "a decoder's programs end with the last norm and the logits of one token"
        )
    chunks = [
        int(m.labels["tokens"]) // int(m.labels["chunk"])
        for m in result.measurements
        if PUBLISHED[str(m.labels["layer"])].arch != "bert"
    ]
    if any(count > _CHUNKS for count in chunks):
        result.notes.append(
            f"of the chunks of a prompt, {_CHUNKS} were timed; between them, cycles are "
            "interpolated by position"
        )
    result.notes.append(
        "bound: the larger of the array's ideal cycles and the beats of DRAM that loads and "
        "stores need"
    )
    for name, count in product(shapes, tokens):
        curves: dict[str, list[tuple[Label, float]]] = {
            schedule: [
                (m.labels["T"], m.cycles)
                for m in result.measurements
                if (m.labels["layer"], m.labels["tokens"], m.schedule) == (name, count, schedule)
            ]
            for schedule in SCHEDULES
        }
        if curves["none"]:
            result.panels.append(Panel(f"{name}, {count:,} tokens", "tiles T", "cycles", curves))
    return result


def _measure_all(subject: Subject, cases: Sequence[_Case]) -> list[_Measured]:
    """All cases' measurements, in processes of their own where there are several."""
    count = min(os.cpu_count() or 1, len(cases))
    with progress("measuring layers", total=len(cases)) as advance:
        if count == 1:
            measured = []
            for case in cases:
                measured.append(_measure(subject, case))
                advance(len(measured))
            return measured
        with worker_pool(count) as workers:
            futures = [workers.submit(_measure, subject, case) for case in cases]
            for number, _ in enumerate(as_completed(futures), 1):
                advance(number)
            try:
                return [future.result() for future in futures]
            except BrokenProcessPool as error:
                raise AfternormError(
                    "a process was lost; is memory short? try fewer --tiles or --tokens at once"
                ) from error


def _measure(subject: Subject, case: _Case) -> _Measured:
    """Measure a case, without the numbers of tokens for which there is no room."""
    config = subject.config
    left, reasons = sorted(case.tokens), {}
    while left:
        try:
            config = config.with_(tiles=case.tiles)
            config, measured = _with_room(subject, config, case, left)
        except (CapacityError, ConfigError) as error:
            reasons[left.pop()] = str(error)
        else:
            return _Measured(config, measured, reasons)
    return _Measured(config, {}, reasons)


def _with_room(
    subject: Subject, config: Config, case: _Case, counts: Sequence[int]
) -> tuple[Config, dict[int, list[Measurement]]]:
    """Measure numbers of tokens with the same memories, in the largest chunks that fit."""
    chunk = _TEXT if case.encodes else config.rows_max
    used = config

    def measure(config: Config) -> list[Measurement]:
        nonlocal used
        used = config
        # The most first: they are what may not fit.
        compilers = [
            (tokens, _compiler(case, config, schedule, tokens, min(tokens, chunk)))
            for tokens in sorted(counts, reverse=True)
            for schedule in SCHEDULES
        ]
        if len({one.resident for _, one in compilers}) > 1 and enlarged(config) is not None:
            raise CapacityError("under some schedules, weights stay, under others there is no room")
        return [_tokens_time(subject, case, one, tokens) for tokens, one in compilers]

    while True:
        try:
            measured = subject.with_room(config, measure)
        except CapacityError:
            if case.encodes or chunk <= config.block:
                raise
            chunk = max(config.block, chunk // 2)
        else:
            break
    return used, {
        tokens: [one for one in measured if one.labels["tokens"] == tokens] for tokens in counts
    }


def _compiler(
    case: _Case, config: Config, schedule: Schedule, tokens: int, chunk: int
) -> ModelCompiler:
    """The compiler of a prompt in chunks, or of texts."""
    room = chunk if case.encodes else tokens
    model = hollow_model(case.name, case.shape, room)
    return ModelCompiler(config, model, schedule, tokens=room, chunk=chunk)


def _tokens_time(
    subject: Subject, case: _Case, compiler: ModelCompiler, tokens: int
) -> Measurement:
    """The time of all tokens, chunk by chunk; of many chunks of a prompt, some are timed."""
    chunk = compiler.tokens if case.encodes else compiler.chunk
    labels: dict[str, Label] = {
        "layer": case.name,
        "tokens": tokens,
        "T": case.tiles,
        "chunk": min(chunk, tokens),
        "weights": place_of(compiler),
    }
    whole, rest = divmod(tokens, chunk)
    timed: list[tuple[ModelProgram, float]] = []
    if case.encodes:
        timed = [(compiler.encode(chunk), float(whole))]
        if rest:
            timed.append((compiler.encode(rest), 1.0))
    else:
        if rest:
            timed.append((compiler.step(whole * chunk, rest), 1.0))
        points: Sequence[int] = range(whole)
        if whole > _CHUNKS:
            points = [whole * (n + 1) // _CHUNKS - 1 if n else 0 for n in range(_CHUNKS)]
        # The largest first: it is the one that may not fit.
        for point in reversed(points):
            timed.append((compiler.step(point * chunk, chunk), _hat(points, point, whole)))
    return _weighted(
        [(programs_time(subject, compiler, [one], labels), count) for one, count in timed]
    )


def _hat(points: Sequence[int], at: int, count: int) -> float:
    """How much a point counts in the sum over ``0 .. count - 1`` of what is linear between them."""
    total = 0.0
    for n in range(count):
        near = [p for p in points if p != at and (p - at) * (n - at) > 0]
        if n == at:
            total += 1.0
        elif near:
            nearest = min(near, key=lambda p: abs(p - at))
            total += max(0.0, 1.0 - (n - at) / (nearest - at))
    return total


def _weighted(parts: Sequence[tuple[Measurement, float]]) -> Measurement:
    """Measurements of which each stands for several, one after the other."""
    first = parts[0][0]

    def total(name: str) -> int:
        value: float = sum(getattr(one, name) * count for one, count in parts)
        return round(value)

    added = ("cycles", "span", "ideal", "macs", "instructions", "dram_beats", "bound")
    totals: dict[str, Any] = {name: total(name) for name in added}
    lost = {who: round(sum(one.lost[who] * count for one, count in parts)) for who in first.lost}
    return replace(first, lost=lost, **totals)
