# SPDX-License-Identifier: Apache-2.0
"""Whole transformer layers: seeded, of a checkpoint, or with the shapes of a published model."""

from collections.abc import Sequence
from dataclasses import dataclass
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
from afternorm.errors import AfternormError
from afternorm.job import Job
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
_CLASSES = 8
"""Of the classifier that ends a decoder's program: as few as an array takes at once."""


def bench_layer(
    subject: Subject,
    *,
    archs: Sequence[Arch] = ARCHS,
    tokens: int | None = None,
    source: Model | None = None,
    layer: int = 0,
) -> BenchResult:
    """One layer with all normalizations, under all schedules and without them.

    Parameters
    ----------
    archs
        Kinds of seeded layers.
    tokens
        Rows; 128 on the model and 32 on RTL by default.
    source
        A checkpoint, of which `layer` is taken.

    Raises
    ------
    AfternormError
        If there is no such layer.
    """
    tokens = tokens or (TOKENS if subject.on == "model" else RTL_TOKENS)
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
    times = [subject.time(config, program) for program in programs]
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
        batch=compiler.batch,
    )
