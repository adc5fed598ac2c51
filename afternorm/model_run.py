# SPDX-License-Identifier: Apache-2.0
"""The `run` command: a whole model on RTL, golden machine or in float64."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from typing import Literal, Protocol

import numpy as np

from afternorm.board.link import open_board
from afternorm.checkpoints.decoder import Decoder
from afternorm.checkpoints.model import Model
from afternorm.compiler.buffers import Floats
from afternorm.compiler.layer_weights import Schedule
from afternorm.compiler.model import ModelCompiler, ModelProgram
from afternorm.config import Config
from afternorm.cycles import Prediction, predict
from afternorm.device import Device, RtlDevice
from afternorm.errors import CapacityError
from afternorm.golden_device import GoldenDevice
from afternorm.inference import Done, Inference
from afternorm.isa import Engine
from afternorm.progress import progress
from afternorm.results import ModelResult, ModelRun, ProgramResult, TextResult
from afternorm.sampling import Sampler
from afternorm.simulation import Simulator

Backend = Literal["rtl", "uart", "golden", "float"]
BACKENDS: tuple[Backend, ...] = ("rtl", "uart", "golden", "float")

NEW_TOKENS = 32
"""That a text is continued by, unless stated otherwise."""

Write = Callable[[str], None]
"""Takes pieces of text as they come."""
Texts = list[TextResult]

_Open = Callable[[Config, bytes], Device]
"""Opens a device with what lies in its DRAM."""


class _Engine(Protocol):
    """What computes a model: from tokens to logits or to an embedding."""

    def restart(self) -> None:
        """Decoders: begin another text."""

    def feed(self, tokens: Sequence[int]) -> Floats:
        """Decoders: the logits after the tokens."""

    def sentence(self, tokens: Sequence[int]) -> Floats:
        """Encoders: the embedding of a text."""


class _Float:
    """The model in float64."""

    def __init__(self, model: Model, tokens: int) -> None:
        self.model, self.tokens = model, tokens

    def restart(self) -> None:
        self.decoder = Decoder(self.model, 1, length=self.tokens)

    def feed(self, tokens: Sequence[int]) -> Floats:
        for token in tokens:
            logits = self.decoder.step([token])
        return np.asarray(logits[0])

    def sentence(self, tokens: Sequence[int]) -> Floats:
        return self.model.sentence(tokens)


class _Checked:
    """The RTL or a board, and every result compared with the golden machine's."""

    def __init__(self, rtl: Inference, golden: Inference) -> None:
        self.rtl, self.golden = rtl, golden
        self.words = self.mismatches = 0

    def restart(self) -> None:
        self.rtl.restart()
        self.golden.restart()

    def feed(self, tokens: Sequence[int]) -> Floats:
        return self._same(self.rtl.feed(tokens), self.golden.feed(tokens))

    def sentence(self, tokens: Sequence[int]) -> Floats:
        features = self._same(self.rtl.features(tokens), self.golden.features(tokens))
        return self.rtl.pool(features)

    def _same(self, got: Floats, expected: Floats) -> Floats:
        flags = self.rtl.done[-1].run.flags != self.golden.done[-1].run.flags
        self.words += got.size + 1
        self.mismatches += int((got != expected).sum()) + int(flags)
        return got


def run_model(
    config: Config,
    model: Model,
    texts: Sequence[str],
    *,
    tokens: int | None,
    backend: Backend,
    schedules: Sequence[Schedule],
    sampler: Callable[[], Sampler],
    clock: float,
    write: Write,
    simulator: Simulator = "verilator",
    threads: int = 1,
    port: str = "",
) -> ModelResult:
    """Continue every text (decoders), or embed it (encoders), under each of the schedules.

    Parameters
    ----------
    tokens
        New tokens of every text, at most; a token that ends texts ends it.  None: `NEW_TOKENS`,
        or what the model's context leaves.
    sampler
        Makes what chooses the tokens, anew for every text.
    clock
        MHz, for tokens a second.
    write
        Gets the texts of the first schedule, piece by piece.
    threads
        That the RTL is simulated on.
    port
        Serial port of the board, for the backend `uart`.

    Raises
    ------
    AfternormError
        If a text cannot be encoded, the model does not fit, a tool is missing, or the
        accelerator stops.
    """
    encoded = [model.encode(text) for text in texts]
    longest = max(len(ids) for ids in encoded)
    new = 0
    if model.classifier is not None:
        new = max(0, min(NEW_TOKENS, model.context - longest)) if tokens is None else tokens
    most = longest + new
    if backend == "float":
        engine = _Float(model, most)
        results = _texts(model, engine, encoded, new, sampler, write)
        return ModelResult(model=model.name, backend=backend, clock=clock, texts=results, runs=[])
    # Compiled first: what does not fit is said before anything is built.
    compilers = {
        schedule: _compiled(config, model, schedule, tokens=most, chunk=longest)
        for schedule in schedules
    }
    opened = _opener(backend, simulator, threads, port)
    runs = []
    for number, compiler in enumerate(compilers.values()):

        def texts_on(engine: _Engine, out: Write = write if number == 0 else _nowhere) -> Texts:
            return _texts(model, engine, encoded, new, sampler, out)

        runs.append(_run(compiler, opened, texts_on))
    return ModelResult(
        model=model.name, backend=backend, clock=clock, texts=runs[0].texts, runs=runs
    )


def _nowhere(_: str) -> None:
    """Takes text that nobody wants to read."""


def _opener(backend: Backend, simulator: Simulator, threads: int, port: str) -> _Open | None:
    """Opens the device that is checked against the golden machine, if it is not that alone."""

    def rtl(config: Config, image: bytes) -> Device:
        with progress(f"building the simulation ({simulator})"):
            return RtlDevice(config, image, simulator=simulator, threads=threads)

    def board(config: Config, image: bytes) -> Device:
        with progress(f"loading the board at {port}"):
            return open_board(config, image, port)

    return {"rtl": rtl, "uart": board}.get(backend)


def _run(
    compiler: ModelCompiler, opened: _Open | None, texts_on: Callable[[_Engine], Texts]
) -> ModelRun:
    """All texts under one schedule."""
    config, image = compiler.config, compiler.image()
    with ExitStack() as stack:
        engine = golden = Inference(compiler, stack.enter_context(GoldenDevice(config, image)))
        checked = None
        began = time.perf_counter()
        if opened is not None:
            engine = Inference(compiler, stack.enter_context(opened(config, image)))
            checked = _Checked(engine, golden)
        built = time.perf_counter()
        texts = texts_on(checked or golden)
        seconds = time.perf_counter() - built
    return ModelRun(
        schedule=compiler.schedule,
        resident=compiler.resident,
        cached=compiler.cached,
        regions={region.name: region.size for region in compiler.regions},
        prologue=_program(config, engine.prologue),
        programs=[_program(config, done) for done in engine.done],
        texts=texts,
        words=checked.words if checked else 0,
        mismatches=checked.mismatches if checked else 0,
        flags=sorted({name for done in engine.done for name in done.run.flag_names()}),
        build_seconds=built - began,
        seconds=seconds,
    )


def _compiled(
    config: Config, model: Model, schedule: Schedule, *, tokens: int, chunk: int
) -> ModelCompiler:
    """The compiler; if the model does not fit, the error says how many tokens would."""
    try:
        return ModelCompiler(config, model, schedule, tokens=tokens, chunk=chunk)
    except CapacityError as error:
        fit, too_many = 0, tokens
        while too_many - fit > 1:
            some = (fit + too_many) // 2
            try:
                ModelCompiler(config, model, schedule, tokens=some, chunk=min(chunk, some))
                fit = some
            except CapacityError:
                too_many = some
        advice = f"{fit} tokens would fit" if fit else "not even one token would fit"
        raise CapacityError(f"{error}; {advice}") from error


def _texts(
    model: Model,
    engine: _Engine,
    encoded: list[list[int]],
    new: int,
    sampler: Callable[[], Sampler],
    write: Write,
) -> Texts:
    """Continue texts, which are their own progress, or embed them."""
    if model.classifier is not None:
        return [_continue(model, engine, ids, new, sampler(), write) for ids in encoded]
    results = []
    with progress("embedding texts", total=len(encoded)) as advance:
        for ids in encoded:
            embedding = engine.sentence(ids).tolist()
            results.append(TextResult(ids=ids, text=model.decode(ids), embedding=embedding))
            advance(len(results))
    return results


def _continue(
    model: Model, engine: _Engine, ids: list[int], new: int, sampler: Sampler, write: Write
) -> TextResult:
    """Continue one text."""
    engine.restart()
    text, given = model.decode(ids), list(ids)
    write(text)
    logits = engine.feed(ids)
    while len(ids) - len(given) < new:
        token = sampler(logits)
        ids = [*ids, token]
        if token in model.eos:
            break
        # Characters may take several tokens: what is not whole yet is replaced when it is.
        longer = model.decode(ids)
        if not longer.endswith("\ufffd"):
            write(longer[len(text) :])
            text = longer
        if len(ids) - len(given) < new:
            logits = engine.feed([token])
    write("\n")
    return TextResult(ids=ids, text=model.decode(ids), embedding=None)


@cache
def _predicted(config: Config, program: ModelProgram) -> Prediction:
    """A program's time according to the model, with the simulated DRAM's latency."""
    return predict(config, program.instructions)


def _program(config: Config, done: Done) -> ProgramResult:
    """What is reported of a program that was run."""
    prediction = _predicted(config, done.program)
    return ProgramResult(
        position=done.position,
        rows=done.rows,
        instructions=len(done.program.instructions),
        cycles=done.run.cycles,
        predicted=prediction.cycles,
        ideal=done.program.ideal,
        macs=done.program.macs,
        dram_bytes=done.dram_bytes,
        dram_needed=done.program.needed,
        engines={engine.name.lower(): done.run.engine(engine).busy for engine in Engine},
        lost=done.run.lost if done.run.cycles else prediction.lost,
    )
