# SPDX-License-Identifier: Apache-2.0
"""Whole transformer layers: seeded, of a checkpoint, or with the shapes of a published model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from afternorm.bench.results import BenchResult, Label, Measurement, Panel
from afternorm.bench.subject import Case, Subject
from afternorm.checkpoints import ARCHS, Arch, Floats, Layer, Model, seeded_input, seeded_layer
from afternorm.checkpoints.layer import weight_shapes
from afternorm.compiler.layer import compile_layer
from afternorm.compiler.layer_weights import SCHEDULES, Schedule
from afternorm.compiler.model import ModelCompiler, ModelProgram
from afternorm.config import Config
from afternorm.cycles import predict
from afternorm.errors import AfternormError
from afternorm.job import Job
from afternorm.progress import progress
from afternorm.results import lost_in_all

TOKENS = 128
RTL_TOKENS = 32


@dataclass(frozen=True)
class Shape:
    """Sizes of a published model's layers."""

    arch: Arch
    dim: int
    hidden: int
    heads: int
    kv_heads: int


PUBLISHED = {
    "llama-2-7b": Shape("llama", 4096, 11008, 32, 32),
    "llama-3-8b": Shape("llama", 4096, 14336, 32, 8),
    "bert-large": Shape("bert", 1024, 4096, 16, 16),
}
_CHUNKS = 3
"""Chunks of a decoder's tokens that are timed, the first, the last, and between."""
_CLASSES = 8
"""Of the classifier that ends a decoder's program: as few as an array takes at once."""


def bench_layer(
    subject: Subject,
    *,
    archs: Sequence[Arch] = ARCHS,
    tokens: int | None = None,
    source: Model | str | None = None,
    layer: int = 0,
    tiles: Sequence[int] | None = None,
) -> BenchResult:
    """One layer with all normalizations, under all schedules and without them.

    Parameters
    ----------
    archs
        Kinds of seeded layers.
    tokens
        Rows; 128 on the model and 32 on RTL by default.
    source
        A checkpoint, of which `layer` is taken; or a published model's name, whose shapes are
        taken with weights of zero, on the model only.  They stream from DRAM where they do not
        fit beside what else the layer needs.
    tiles
        With a published model's name: numbers of tiles, by default the configuration's.

    Raises
    ------
    AfternormError
        If there is no such layer or model, or it cannot be measured on RTL.
    """
    tokens = tokens or (TOKENS if subject.on == "model" else RTL_TOKENS)
    if isinstance(source, str):
        return _published(subject, source, tokens, tiles)
    layers = {}
    if source is None:
        title = f"seeded layers, weights in the scratchpad, {tokens} tokens"
        layers = {arch: seeded(subject, arch) for arch in archs}
    else:
        if not 0 <= layer < len(source.layers):
            raise AfternormError(
                f"{source.name} has {len(source.layers)} layers: there is no layer {layer}"
            )
        title = f"layer {layer} of {source.name}, weights in the scratchpad, {tokens} tokens"
        layers = {source.arch: source.layers[layer]}
    result = subject.result("layer", title)
    cases = [
        Case(
            {"layer": arch, "dim": one.dim},
            partial(_layer, layer=one, x=seeded_input(one, subject.seed, tokens)),
            SCHEDULES,
        )
        for arch, one in layers.items()
    ]
    subject.measure(result, cases)
    _panel(result)
    return result


def seeded(subject: Subject, arch: Arch) -> Layer:
    """A seeded layer: MiniLM's sizes on the model, a sixth of them on RTL."""
    if subject.on == "model":
        kv_heads = 4 if arch == "llama" else None
        sizes = {"dim": 384, "heads": 12, "hidden": 1536}
    else:
        kv_heads = 2 if arch == "llama" else None
        sizes = {"dim": 64, "heads": 4, "hidden": 128}
    return seeded_layer(arch, subject.seed, kv_heads=kv_heads, **sizes)


def _layer(config: Config, schedule: Schedule, *, layer: Layer, x: Floats) -> Job:
    return compile_layer(config, layer, x, schedule)


def _panel(result: BenchResult) -> None:
    names = list(dict.fromkeys(str(one.labels["layer"]) for one in result.measurements))
    curves: dict[str, list[tuple[Label, float]]] = {
        schedule: [
            (str(one.labels["layer"]), 100 * (result.overhead(one) or 0.0))
            for one in result.measurements
            if one.schedule == schedule
        ]
        for schedule in SCHEDULES
        if schedule != "none"
    }
    title = f"{result.title}: {', '.join(names)}" if len(names) == 1 else result.title
    result.panels.append(Panel(title, "layer", "cycles above none, %", curves, bars=True))


# Published models


def hollow_model(name: str, shape: Shape, tokens: int) -> Model:
    """A model of one layer whose weights are all the same zero: only its shape matters."""
    zero: Any = np.float16(0)

    def zeros(*size: int) -> Floats:
        return np.broadcast_to(zero, size)

    rotates = shape.arch == "llama"
    weights = {
        weight: zeros(*size)
        for weight, size in weight_shapes(
            shape.arch,
            shape.dim,
            shape.hidden,
            shape.heads,
            shape.kv_heads,
            shape.dim // shape.heads,
        ).items()
    }
    return Model(
        name=name,
        arch=shape.arch,
        layers=(Layer(shape.arch, shape.heads, shape.kv_heads, 1e-5, weights),),
        embedding=zeros(_CLASSES, shape.dim),
        positions=None if rotates else zeros(tokens, shape.dim),
        final_gamma=zeros(shape.dim),
        final_beta=None if rotates else zeros(shape.dim),
        classifier=zeros(_CLASSES, shape.dim) if shape.arch != "bert" else None,
        context=tokens,
        tokenizer=None,
        bos=(),
        eos=frozenset(),
    )


def _published(
    subject: Subject, name: str, tokens: int, tiles: Sequence[int] | None
) -> BenchResult:
    """One layer of a published model's shape, its weights streaming from DRAM."""
    shape = published(subject, name)
    result = subject.result("layer", f"one layer of {name}, {tokens} tokens")
    model = hollow_model(name, shape, tokens)
    some = [subject.config.tiles] if tiles is None else tiles
    interpolated = False
    with progress(f"measuring {name}", total=len(some) * len(SCHEDULES)) as advance:
        for number, T in enumerate(some):

            def measure(config: Config, before: int = number * len(SCHEDULES)) -> list[Measurement]:
                nonlocal interpolated
                measured: list[Measurement] = []
                for schedule in SCHEDULES:
                    chunk = min(tokens, config.rows_max)
                    compiler = ModelCompiler(config, model, schedule, tokens=tokens, chunk=chunk)
                    measured.append(_prefill(subject, compiler, tokens, name))
                    advance(before + len(measured))
                    interpolated |= tokens > _CHUNKS * compiler.chunk and compiler.decodes
                return measured

            result.measurements += subject.with_room(subject.config.with_(tiles=T), measure)
    result.notes += subject.notes()
    if model.classifier is not None:
        result.notes.append(
            f"the layer's programs end with the last norm and {_CLASSES} logits of one token"
        )
    if interpolated:
        result.notes.append(
            f"of the chunks of tokens, {_CHUNKS} were timed; between them, cycles are interpolated "
            "by position"
        )
    result.notes.append(
        "bound: the larger of the array's ideal cycles and the beats of DRAM that loads and "
        "stores need"
    )
    if len(some) == 1:
        _panel(result)
    else:
        curves: dict[str, list[tuple[Label, float]]] = {
            schedule: [
                (m.labels["T"], m.cycles) for m in result.measurements if m.schedule == schedule
            ]
            for schedule in SCHEDULES
        }
        result.panels.append(Panel(result.title, "tiles T", "cycles", curves))
    return result


def published(subject: Subject, name: str) -> Shape:
    """The shape of a published model.

    Raises
    ------
    AfternormError
        If there is none of that name, or it is to be measured on RTL.
    """
    if name not in PUBLISHED:
        raise AfternormError(f"there is no shape {name!r}; there are {', '.join(PUBLISHED)}")
    if subject.on == "rtl":
        raise AfternormError(f"a layer of {name} takes too long to simulate: use --on model")
    return PUBLISHED[name]


def place_of(compiler: ModelCompiler) -> str:
    """Where the weights are, as a label."""
    return "resident" if compiler.resident else "streamed"


def _prefill(subject: Subject, compiler: ModelCompiler, tokens: int, name: str) -> Measurement:
    """The time of all tokens, chunk by chunk for a decoder; of many chunks, some are timed."""
    labels: dict[str, Label] = {
        "layer": name,
        "T": compiler.config.tiles,
        "weights": place_of(compiler),
    }
    if not compiler.decodes:
        return programs_time(subject, compiler, [compiler.encode(tokens)], labels)
    chunk = compiler.chunk
    whole, rest = divmod(tokens, chunk)
    timed = {whole * (n + 1) // _CHUNKS - 1 if n else 0 for n in range(_CHUNKS)}
    timed = set(range(whole)) if whole <= _CHUNKS else timed
    parts = []
    if rest:
        last = compiler.step(whole * chunk, rest)
        parts.append((programs_time(subject, compiler, [last], labels), 1.0))
    # The largest first: it is the one that may not fit.
    points = sorted(timed, reverse=True)
    for index, point in enumerate(points):
        program = compiler.step(point * chunk, chunk)
        one = programs_time(subject, compiler, [program], labels)
        parts.append((one, _hat(points, index, whole)))
    return _weighted(parts)


def _hat(points: Sequence[int], index: int, count: int) -> float:
    """How much a point counts in the sum over ``0 .. count - 1`` of what is linear between them."""
    at = points[index]
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


def programs_time(
    subject: Subject,
    compiler: ModelCompiler,
    programs: Sequence[ModelProgram],
    labels: dict[str, Label],
    *,
    bound: int | None = None,
) -> Measurement:
    """The time of a model's programs on the model; by default bound by the array or by DRAM."""
    config = compiler.config
    times = [
        predict(config, program.instructions, hop_latency=subject.hop_latency)
        for program in programs
    ]
    beat = config.dram_width // 8
    beats = sum(-(-program.moved // beat) for program in programs)
    ideal = sum(program.ideal for program in programs)
    return Measurement(
        labels=labels,
        schedule=compiler.schedule,
        cycles=sum(time.cycles for time in times),
        span=sum(time.span for time in times),
        ideal=ideal,
        macs=sum(program.macs for program in programs),
        multipliers=config.macs,
        lost=lost_in_all(time.lost for time in times),
        instructions=sum(len(program.instructions) for program in programs),
        dram_beats=beats,
        bound=max(ideal, beats) if bound is None else bound,
    )
