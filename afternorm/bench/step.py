# SPDX-License-Identifier: Apache-2.0
"""One token through a layer of a published model's shape, behind a context, on 1 to 1024 tiles."""

from collections.abc import Sequence

from afternorm.bench.decode import weight_bound
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
    subject: Subject, name: str, *, context: int = CONTEXT, tiles: Sequence[int] | None = None
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

    Raises
    ------
    AfternormError
        If there is no such shape, it is an encoder's, or it is to be measured on RTL.
    """
    shape = published(subject, name)
    if shape.arch == "bert":
        raise AfternormError(f"{name} is an encoder: it has no steps of single tokens")
    model = hollow_model(name, shape, context + 1)
    title = f"one layer of {name}, a token behind {context:,}"
    result = subject.result("decode", title)
    some = [subject.config.tiles] if tiles is None else tiles

    def measure(config: Config) -> list[Measurement]:
        measured = []
        for schedule in SCHEDULES:
            compiler = ModelCompiler(config, model, schedule, tokens=context + 1)
            labels: dict[str, Label] = {"T": config.tiles, "weights": place_of(compiler)}
            least = weight_bound(config, model)
            bound = least.array if compiler.resident else max(least.array, least.dram)
            programs = [compiler.step(context)]
            measured.append(programs_time(subject, compiler, programs, labels, bound=bound))
        return measured

    with progress(f"measuring {name}", total=len(some)) as advance:
        for number, T in enumerate(some):
            result.measurements += subject.with_room(subject.config.with_(tiles=T), measure)
            advance(number + 1)
    result.notes += subject.notes()
    result.notes.append(
        "bound: cycles that the weights need to enter the arrays, and to come from DRAM where "
        "they stream; caches that stream come on top of it"
    )
    curves: dict[str, list[tuple[Label, float]]] = {
        schedule: [(m.labels["T"], m.cycles) for m in result.measurements if m.schedule == schedule]
        for schedule in SCHEDULES
    }
    curves["bound"] = [
        (m.labels["T"], m.bound) for m in result.measurements if m.schedule == "none"
    ]
    result.panels.append(Panel(title, "tiles T", "cycles a token", curves))
    return result
