# SPDX-License-Identifier: Apache-2.0
"""Decoding with a cache: cycles a token by position, against what the weights' way allows.

With few rows, a product is bound by its weights.  Each block of them enters an array once, one a
cycle in each tile; where weights stream, each also passes the DRAM port, with its exponent.  With
more rows than an array has columns, a row of each sequence of a batch, the rows bind.

Beside them the port has to bring the program, 64 bytes an instruction, the input, whatever pads the
weights to whole blocks and lanes, and caches for which the tiles have no room; in the end come the
products of the last weights, and the output.  Tiles that split a model whose width is not much more
than a block a tile pad most: there it is measured, too, with tiles that all do the same on one copy
of the weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from afternorm.bench.layers import programs_time
from afternorm.bench.results import BenchResult, Label, Measurement, Panel
from afternorm.bench.subject import Subject, enlarged
from afternorm.checkpoints import Model
from afternorm.compiler.buffers import ceil_div
from afternorm.compiler.layer_weights import SCHEDULES
from afternorm.compiler.model import ModelCompiler
from afternorm.config import Config
from afternorm.device import RtlDevice
from afternorm.errors import AfternormError, CapacityError, ConfigError
from afternorm.golden_device import GoldenDevice
from afternorm.inference import Inference
from afternorm.memory_map import EXPONENT_BYTES
from afternorm.progress import progress

BOUND = (
    "bound: cycles that a step's rows and weights need to enter the arrays, and the weights to "
    "come from DRAM where they stream"
)
RTL_POSITIONS = 8
"""On RTL, only the first so many positions."""


@dataclass(frozen=True)
class WeightBound:
    """Cycles that a step's weights need at least.

    Attributes
    ----------
    array : to enter the arrays, a block a cycle in each tile; or the rows, while the weights of an
        array stand still.
    dram : to come from DRAM, mantissas and exponents, a beat a cycle.
    """

    array: int
    dram: int


def weight_bound(config: Config, model: Model, batch: int = 1) -> WeightBound:
    """The bound of all products of `batch` rows with the layers' weights and the classifier.

    A group of `rows_max` rows at most takes the weights once.  They may be split in any way over
    the tiles.
    """
    matrices = [w for layer in model.layers for w in layer.weights.values() if w.ndim == 2]
    if model.classifier is not None:
        matrices.append(model.classifier)
    groups, each = ceil_div(batch, config.rows_max), config.columns * config.tiles
    blocks = cycles = 0
    for w in matrices:
        depth = ceil_div(w.shape[1], config.block)
        blocks += len(w) * depth
        entries, rows = groups * len(w), batch * config.tiles * ceil_div(len(w), each)
        cycles += depth * max(entries, rows)
    size = blocks * (config.block + EXPONENT_BYTES)
    return WeightBound(ceil_div(cycles, config.tiles), ceil_div(8 * size, config.dram_width))


def least_cycles(compiler: ModelCompiler) -> int:
    """The bound of a compiled model's step."""
    bound = weight_bound(compiler.layout, compiler.model, compiler.batch)
    return bound.array if compiler.resident else max(bound.array, bound.dram)


def bench_decode(
    subject: Subject,
    model: Model,
    *,
    positions: Sequence[int] | None = None,
    batches: Sequence[int] = (1,),
) -> BenchResult:
    """Steps of single tokens, weights resident and streamed where there are memories for both.

    On RTL, the configuration's memories decide, and tokens are drawn with the seed.

    Parameters
    ----------
    positions
        By default powers of two, the first and the last.
    batches
        Numbers of sequences that take a step together, each at the same position.

    Raises
    ------
    AfternormError
        If the model is an encoder, or does not fit.
    """
    if model.classifier is None:
        raise AfternormError(f"{model.name} is an encoder: it has no steps of single tokens")
    positions = _positions(model.context, subject) if positions is None else positions
    if max(positions) >= model.context:
        raise CapacityError(
            f"there is no position {max(positions)}: the context of {model.name} has room for "
            f"{model.context} tokens"
        )
    result = subject.result("decode", f"{model.name}, one token by position")
    tokens = max(positions) + 1
    for batch in batches:
        if subject.on == "rtl":
            _on_rtl(subject, _compilers(subject.config, model, tokens, batch), positions, result)
            continue
        for config, alike in _memories(subject, model, tokens, batch):
            compilers = _compilers(config, model, tokens, batch, alike)
            _on_model(subject, compilers, positions, result)
            one = result.measurements[-1]
            result.notes.append(
                f"weights {one.labels['weights']}, batch {batch}: scratchpads of "
                f"{config.scratchpad_depth:,} blocks; loads and stores take {one.dram_beats:,} "
                "beats of DRAM"
            )
    result.notes.append(BOUND)
    kinds = dict.fromkeys((str(m.labels["weights"]), m.batch) for m in result.measurements)
    for place, batch in kinds:
        some = [m for m in result.measurements if (m.labels["weights"], m.batch) == (place, batch)]
        curves: dict[str, list[tuple[Label, float]]] = {
            schedule: [(m.labels["position"], m.a_token) for m in some if m.schedule == schedule]
            for schedule in SCHEDULES
        }
        curves["bound"] = [
            (m.labels["position"], m.bound / batch) for m in some if m.schedule == "none"
        ]
        title = f"weights {place}, batch {batch}"
        result.panels.append(Panel(title, "position", "cycles a token", curves))
    return result


def _positions(context: int, subject: Subject) -> list[int]:
    """0, then powers of two, and the last one."""
    last = context - 1 if subject.on == "model" else min(context, RTL_POSITIONS) - 1
    return sorted({0, last} | {1 << n for n in range(last.bit_length()) if 1 << n < last})


def _compilers(
    config: Config, model: Model, tokens: int, batch: int, alike: bool = False
) -> list[ModelCompiler]:
    return [
        ModelCompiler(config, model, schedule, tokens=tokens, alike=alike, batch=batch)
        for schedule in SCHEDULES
    ]


def _memories(subject: Subject, model: Model, tokens: int, batch: int) -> list[tuple[Config, bool]]:
    """The accelerators that are measured, and whether their tiles do alike.

    With memories under which weights stay, and under which they stream; and where its tiles pad
    the weights that stream, with tiles that all do the same, too.
    """
    places = _places(subject, model, tokens, batch, alike=False)
    found = [(config, False) for config in places.values()]
    config = subject.config
    if config.tiles > 1 and model.dim % (config.tiles * config.block):
        places = _places(subject, model, tokens, batch, alike=True)
        found += [(config, True) for stays, config in places.items() if not stays]
    if not found:
        raise CapacityError(
            f"{model.name} with batch {batch} and {tokens} tokens fits no memories that "
            f"{subject.name} could have"
        )
    return found


def _places(
    subject: Subject, model: Model, tokens: int, batch: int, *, alike: bool
) -> dict[bool, Config]:
    """Memories under which everything stays, and under which weights stream, if there are any.

    Streaming, with the most room for caches.
    """
    found: dict[bool, Config] = {}

    def look(config: Config) -> bool | None:
        """Whether everything stays under all schedules, or None if it does not fit."""
        try:
            compilers = _compilers(config, model, tokens, batch, alike)
        except CapacityError:
            return None
        stays = {compiler.resident for compiler in compilers}
        if len(stays) == 1:
            found[stays.pop()] = config
        return all(compiler.resident for compiler in compilers)

    config: Config | None = subject.config
    while config is not None and True not in found:
        look(config)
        config = enlarged(config)
    config = subject.config
    while False not in found:
        try:
            config = config.with_(scratchpad_depth=config.scratchpad_depth // 2)
        except ConfigError:
            break
        if look(config) is None:
            break
    return {stays: found[stays] for stays in (True, False) if stays in found}


def _labels(compiler: ModelCompiler, position: int) -> dict[str, Label]:
    place = "resident" if compiler.resident else "streamed"
    place += ", alike" * compiler.alike
    return {"weights": place, "batch": compiler.batch, "position": position}


def _on_model(
    subject: Subject,
    compilers: Sequence[ModelCompiler],
    positions: Sequence[int],
    result: BenchResult,
) -> None:
    with progress("measuring decode", total=len(positions)) as advance:
        for number, position in enumerate(positions):
            result.measurements += [
                programs_time(
                    subject,
                    compiler,
                    [compiler.step(position)],
                    _labels(compiler, position),
                    bound=least_cycles(compiler),
                )
                for compiler in compilers
            ]
            advance(number + 1)


def _on_rtl(
    subject: Subject,
    compilers: Sequence[ModelCompiler],
    positions: Sequence[int],
    result: BenchResult,
) -> None:
    """Decode on the RTL, and compare every logit with the golden machine's."""
    one = compilers[0]
    rng = np.random.default_rng(subject.seed)
    text = rng.integers(one.model.vocabulary, size=(one.tokens, one.batch)).tolist()
    subject.built(subject.config)
    by_position: dict[int, list[Measurement]] = {position: [] for position in positions}
    with progress("measuring decode", total=len(compilers)) as advance:
        for number, compiler in enumerate(compilers):
            image = compiler.image()
            with RtlDevice(subject.config, image) as device:
                rtl = Inference(compiler, device)
                golden = Inference(compiler, GoldenDevice(subject.config, image))
                for position, tokens in enumerate(text):
                    differ = int((rtl.feed_batch(tokens) != golden.feed_batch(tokens)).sum())
                    done = rtl.done[-1]
                    differ += int(done.run.flags != golden.done[-1].run.flags)
                    if position not in by_position:
                        continue
                    by_position[position].append(
                        Measurement(
                            labels=_labels(compiler, position),
                            schedule=compiler.schedule,
                            cycles=done.run.cycles,
                            span=done.run.span,
                            ideal=done.program.ideal,
                            macs=done.program.macs,
                            multipliers=subject.config.macs,
                            lost=done.run.lost,
                            instructions=len(done.program.instructions),
                            dram_beats=ceil_div(8 * done.program.moved, subject.config.dram_width),
                            bound=least_cycles(compiler),
                            differ=differ,
                            batch=compiler.batch,
                        )
                    )
            advance(number + 1)
    for some in by_position.values():
        result.measurements += some
