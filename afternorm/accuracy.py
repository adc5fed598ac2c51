# SPDX-License-Identifier: Apache-2.0
"""What the machine's arithmetic costs a model: the golden machine against float64.

Decoders: the negative log-likelihood (NLL, natural logarithm) of texts on the decode path, one
token a step with the cache, many texts side by side.  Encoders: the cosine between embeddings of
texts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gcd, lcm
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from afternorm.checkpoints.decoder import Decoder
from afternorm.checkpoints.model import Model
from afternorm.compiler.buffers import Floats, round_up
from afternorm.compiler.layer_weights import Schedule
from afternorm.compiler.model import ModelCompiler
from afternorm.config import Config
from afternorm.errors import CapacityError, ConfigError
from afternorm.golden_batch import GoldenBatch
from afternorm.progress import Advance

MEMORY = 1 << 30
"""Bytes that the texts that run side by side may take; more of them run one group after another."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How one format does.

    Attributes
    ----------
    block, fraction_bits, schedule : the format.
    count : tokens that were predicted, or texts.
    loss : decoders: the mean NLL of a token; encoders: the mean of 1 - cosine.
    reference : decoders: the mean NLL in float64; encoders: 0.
    worst : decoders: the largest mean NLL of a text over float64's; encoders: the largest
        1 - cosine.
    uncertainty : standard error of the excess, by how it differs from text to text; None for one
        text.
    flags : names of the sticky flags that were raised.
    """

    block: int
    fraction_bits: int
    schedule: Schedule
    count: int
    loss: float
    reference: float
    worst: float
    uncertainty: float | None
    flags: list[str]

    @property
    def excess(self) -> float:
        """What the format loses."""
        return self.loss - self.reference


class Stepper(Protocol):
    """What reads texts side by side, a token each at a time."""

    def step(self, tokens: Sequence[int]) -> Floats:
        """Read a token of every text: logits of those after them, ``[text, vocabulary]``."""


def format_config(config: Config, block: int, fraction_bits: int) -> Config:
    """An accelerator with another block and fraction, and what has to fit them.

    The number of tiles stays, and with it the order of all sums.

    Raises
    ------
    ConfigError
        If block or fraction is impossible.
    """
    if block < 1:
        raise ConfigError(f"block must be above 0, not {block}")
    fits = config.columns % block == 0 or block % config.columns == 0
    columns = config.columns if fits else gcd(config.columns, block)
    lanes = gcd(config.lanes, columns, block)
    # A whole model needs rows for a block, and a gated layer columns for two.
    rows_max = max(config.rows_max, block)
    return config.with_(
        block=block,
        fraction_bits=fraction_bits,
        columns=columns,
        lanes=lanes,
        acc_width=round_up(max(config.acc_width, 2 * block), lcm(columns, block)),
        rows_max=rows_max,
        scale_depth=max(config.scale_depth, rows_max),
        stat_depth=max(config.stat_depth, rows_max),
    )


def compile_resident(
    config: Config, model: Model, schedule: Schedule, tokens: int
) -> ModelCompiler:
    """Compile with memories so large that weights and caches stay in the tiles, if there are such.

    What is computed does not depend on their size.

    Raises
    ------
    CapacityError
        If the model does not fit the largest memories either.
    """
    while True:
        larger = _twice(_twice(config, "scratchpad_depth"), "vector_depth")
        try:
            compiler = ModelCompiler(config, model, schedule, tokens=tokens)
        except CapacityError:
            if larger == config:
                raise
        else:
            if larger == config or (compiler.resident and compiler.cached):
                return compiler
        config = larger


def _twice(config: Config, name: str) -> Config:
    """Twice the depth of a memory, or the same if that is beyond what can be."""
    try:
        return config.with_(**{name: 2 * int(getattr(config, name))})
    except ConfigError:
        return config


def nll(logits: Floats, tokens: Sequence[int]) -> Floats:
    """Minus the natural logarithm of the probability of ``tokens[n]`` under ``logits[n]``."""
    top = logits.max(axis=-1)
    norms = top + np.log(np.exp(logits - top[:, None]).sum(axis=-1))
    return np.asarray(norms - logits[np.arange(len(logits)), list(tokens)])


def text_losses(
    decoder: Stepper, texts: Sequence[Sequence[int]], advance: Advance = lambda _: None
) -> Floats:
    """The mean NLL of every text, of all its tokens but the first.

    Texts may differ in length: one that has ended reads its first token again and counts no more.

    Parameters
    ----------
    advance : is told how many tokens have been predicted.
    """
    totals = np.zeros(len(texts))
    counts = np.array([len(text) - 1 for text in texts])
    done = 0
    for position in range(int(counts.max())):
        logits = decoder.step([text[position if position < len(text) else 0] for text in texts])
        going = np.flatnonzero(counts > position).tolist()
        following = [texts[number][position + 1] for number in going]
        totals[going] += nll(logits[going], following)
        done += len(going)
        advance(done)
    return np.asarray(totals / counts)


def decoder_reference(
    model: Model, texts: Sequence[Sequence[int]], advance: Advance = lambda _: None
) -> Floats:
    """`text_losses` in float64."""
    length = max(map(len, texts))
    layer = model.layers[0]
    each = 16 * len(model.layers) * layer.kv_heads * layer.head_dim * length
    losses, done = np.zeros(len(texts)), 0
    for numbers in _groups(texts, each):
        some = [texts[number] for number in numbers]
        decoder = Decoder(model, len(some), length=max(map(len, some)))
        losses[numbers] = text_losses(decoder, some, _after(advance, done))
        done += sum(map(len, some)) - len(some)
    return losses


def decoder_accuracy(
    config: Config,
    model: Model,
    schedule: Schedule,
    texts: Sequence[Sequence[int]],
    reference: Floats,
    advance: Advance = lambda _: None,
) -> Accuracy:
    """The loss of texts of two tokens or more.

    Parameters
    ----------
    reference : `decoder_reference` of the texts.
    advance : is told how many tokens have been predicted.

    Raises
    ------
    CapacityError
        If the model does not fit.
    """
    compiler = compile_resident(config, model, schedule, max(map(len, texts)))
    counts = np.array([len(text) - 1 for text in texts])
    losses, done, flags = np.zeros(len(texts)), 0, set[str]()
    for numbers in _groups(texts, GoldenBatch.machine_bytes(compiler)):
        some = [texts[number] for number in numbers]
        batch = GoldenBatch(compiler, len(some))
        losses[numbers] = text_losses(batch, some, _after(advance, done))
        done += sum(map(len, some)) - len(some)
        flags.update(batch.flags)
    return Accuracy(
        block=config.block,
        fraction_bits=config.fraction_bits,
        schedule=schedule,
        count=int(counts.sum()),
        loss=float(np.average(losses, weights=counts)),
        reference=float(np.average(reference, weights=counts)),
        worst=float((losses - reference).max()),
        uncertainty=_standard_error(losses - reference, counts),
        flags=sorted(flags),
    )


def encoder_reference(
    model: Model, texts: Sequence[Sequence[int]], advance: Advance = lambda _: None
) -> Floats:
    """Every text's embedding in float64, ``[text, dim]``."""
    vectors = []
    for text in texts:
        vectors.append(model.sentence(text))
        advance(len(vectors))
    return np.stack(vectors)


def encoder_distances(
    compiler: ModelCompiler,
    texts: Sequence[Sequence[int]],
    reference: Floats,
    advance: Advance = lambda _: None,
) -> tuple[Floats, list[str]]:
    """1 - cosine of every text's embedding to the reference, and the flags that were raised.

    Texts of the same length run side by side.
    """
    distances, done, flags = np.zeros(len(texts)), 0, set[str]()
    each = GoldenBatch.machine_bytes(compiler)
    for length in sorted({len(text) for text in texts}):
        members = [number for number, text in enumerate(texts) if len(text) == length]
        for some in _groups([texts[number] for number in members], each):
            numbers = [members[number] for number in some]
            batch = GoldenBatch(compiler, len(numbers))
            means = batch.features([texts[number] for number in numbers]).mean(axis=1)
            vectors = means / np.linalg.norm(means, axis=1, keepdims=True)
            distances[numbers] = 1.0 - (vectors * reference[numbers]).sum(axis=1)
            flags.update(batch.flags)
            done += len(numbers)
            advance(done)
    return distances, sorted(flags)


def encoder_accuracy(
    config: Config,
    model: Model,
    schedule: Schedule,
    texts: Sequence[Sequence[int]],
    reference: Floats,
    advance: Advance = lambda _: None,
) -> Accuracy:
    """The distance of the texts' embeddings.

    Parameters
    ----------
    reference : `encoder_reference` of the texts.
    advance : is told how many texts are done.

    Raises
    ------
    CapacityError
        If the model does not fit.
    """
    compiler = compile_resident(config, model, schedule, max(map(len, texts)))
    distances, flags = encoder_distances(compiler, texts, reference, advance)
    return Accuracy(
        block=config.block,
        fraction_bits=config.fraction_bits,
        schedule=schedule,
        count=len(texts),
        loss=float(distances.mean()),
        reference=0.0,
        worst=float(distances.max()),
        uncertainty=_standard_error(distances, np.ones(len(texts))),
        flags=flags,
    )


def _standard_error(values: Floats, weights: NDArray[Any]) -> float | None:
    """Of the weighted mean, as of a ratio of two means."""
    if len(values) < 2:
        return None
    parts = (values - np.average(values, weights=weights)) * weights / weights.mean()
    return float(parts.std(ddof=1) / np.sqrt(len(parts)))


def _after(advance: Advance, before: int) -> Advance:
    """Tells `advance` of what is done after so much was done before."""
    return lambda done: advance(before + done)


def _groups(texts: Sequence[Sequence[int]], each: int) -> Iterator[list[int]]:
    """Numbers of the texts that run side by side, `each` bytes a text; the longest come first."""
    numbers = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
    most = max(1, MEMORY // each)
    for first in range(0, len(numbers), most):
        yield numbers[first : first + most]
