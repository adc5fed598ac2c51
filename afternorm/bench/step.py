# SPDX-License-Identifier: Apache-2.0
"""A step of decoding through a layer of a published model's shape, on 1 to 1024 tiles."""

from collections.abc import Sequence
from functools import partial

from afternorm.bench.decode import BOUND, least_cycles
from afternorm.bench.layers import hollow_model, place_of, programs_time, published
from afternorm.bench.results import BenchResult, Label, Measurement, Panel
from afternorm.bench.subject import Subject
from afternorm.compiler.layer_weights import SCHEDULES
from afternorm.compiler.model import ModelCompiler
from afternorm.config import Config
from afternorm.errors import AfternormError
from afternorm.progress import progress

CONTEXT = 2048


def bench_step(
    subject: Subject,
    name: str,
    *,
    context: int = CONTEXT,
    tiles: Sequence[int] | None = None,
    batches: Sequence[int] = (1,),
) -> BenchResult:
    """A step of decoding behind `context` tokens: one layer, whose weights stream from DRAM.

    Parameters
    ----------
    name
        Of a published decoder's shape; its weights are zeros that take no memory.
    context
        Tokens that are in the caches.
    tiles
        Numbers of tiles, by default the configuration's.
    batches
        Numbers of sequences that take the step together.

    Raises
    ------
    AfternormError
        If there is no such shape, it is an encoder's, or it is to be measured on RTL.
    CapacityError
        If no memories are large enough.
    """
    shape = published(subject, name)
    if shape.arch == "bert":
        raise AfternormError(f"{name} is an encoder: it has no steps of single tokens")
    model = hollow_model(name, shape, context + 1)
    title = f"one layer of {name}, a token behind {context:,}"
    result = subject.result("decode", title)
    cases = [
        (batch, T)
        for batch in batches
        for T in ([subject.config.tiles] if tiles is None else tiles)
    ]

    def measure(config: Config, batch: int) -> list[Measurement]:
        measured = []
        for schedule in SCHEDULES:
            compiler = ModelCompiler(config, model, schedule, tokens=context + 1, batch=batch)
            labels: dict[str, Label] = {
                "T": config.tiles,
                "batch": batch,
                "weights": place_of(compiler),
            }
            programs = [compiler.step(context)]
            bound = least_cycles(compiler)
            measured.append(programs_time(subject, compiler, programs, labels, bound=bound))
        return measured

    with progress(f"measuring {name}", total=len(cases)) as advance:
        for number, (batch, T) in enumerate(cases):
            config = subject.config.with_(tiles=T)
            result.measurements += subject.with_room(config, partial(measure, batch=batch))
            one = result.measurements[-1]
            result.notes.append(
                f"T = {T}, batch {batch}: loads and stores take {one.dram_beats:,} beats of DRAM"
            )
            advance(number + 1)
    result.notes += subject.notes()
    result.notes.append(f"{BOUND}; caches that stream come on top of it")
    for batch in batches:
        some = [one for one in result.measurements if one.batch == batch]
        curves: dict[str, list[tuple[Label, float]]] = {
            schedule: [(m.labels["T"], m.a_token) for m in some if m.schedule == schedule]
            for schedule in SCHEDULES
        }
        curves["bound"] = [(m.labels["T"], m.bound / batch) for m in some if m.schedule == "none"]
        result.panels.append(Panel(f"{title}; batch {batch}", "tiles T", "cycles a token", curves))
    return result
