# SPDX-License-Identifier: Apache-2.0
"""The `accuracy` command: a list of formats, each measured on the same texts."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from afternorm.accuracy import (
    Accuracy,
    decoder_accuracy,
    decoder_reference,
    encoder_accuracy,
    encoder_reference,
    format_config,
)
from afternorm.checkpoints.model import Model, check_ids
from afternorm.compiler.layer_weights import Schedule
from afternorm.config import Config
from afternorm.errors import AfternormError, CheckpointError
from afternorm.progress import progress

CONVENTIONAL: Schedule = "serial"
"""The schedule that normalizes rows before they are multiplied, as is usual."""


@dataclass(frozen=True, kw_only=True)
class AccuracyResult:
    """A model in several formats.

    Attributes
    ----------
    model, configuration : their names.
    decodes : whether losses are NLL of tokens, or else 1 - cosine of texts' embeddings.
    texts : their number.
    count : tokens that were predicted, or texts.
    reference : the mean NLL in float64; 0 for encoders.
    formats : one after the other, as asked for.
    """

    model: str
    configuration: str
    decodes: bool
    texts: int
    count: int
    reference: float
    formats: list[Accuracy]

    def ratio(self, accuracy: Accuracy) -> float | None:
        """What a format loses, relative to the same one normalized conventionally.

        None where that one was not measured, or one of them lost nothing.
        """
        for other in self.formats:
            if (
                other.schedule == CONVENTIONAL
                and (other.block, other.fraction_bits) == (accuracy.block, accuracy.fraction_bits)
                and min(other.excess, accuracy.excess) > 0
            ):
                return accuracy.excess / other.excess
        return None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: what the table has, and parameters by name."""
        return {
            "model": self.model,
            "configuration": self.configuration,
            "measure": "nll" if self.decodes else "1 - cosine",
            "texts": self.texts,
            "count": self.count,
            "reference": self._measures(self.reference) if self.decodes else None,
            "formats": [
                asdict(accuracy)
                | {
                    "excess": accuracy.excess,
                    "of_conventional": self.ratio(accuracy),
                }
                | (
                    self._measures(accuracy.loss)
                    if self.decodes
                    else {"smallest_cosine": 1.0 - accuracy.worst}
                )
                for accuracy in self.formats
            ],
        }

    @staticmethod
    def _measures(loss: float) -> dict[str, float]:
        return {"nll": loss, "perplexity": float(np.exp(loss))}


def read_texts(
    path: Path, model: Model, *, limit: int | None = None, length: int | None = None
) -> list[list[int]]:
    """The tokens of a file's texts.

    Parameters
    ----------
    path : plain text in UTF-8, one text a line (empty lines are left out); or, if it begins with
        a brace, the JSON of scripts/sample_text.py.
    limit : only so many texts, the first ones.
    length : only so many tokens of each, the first ones.

    Raises
    ------
    AfternormError
        If the file cannot be read, has no text, or one that the model cannot take.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise AfternormError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AfternormError(f"{path} is no text in UTF-8: {error}") from error
    least = 1 if model.classifier is None else 2
    if length is not None and length < least:
        raise AfternormError(f"length={length} leaves nothing to predict; use {least} or more")
    sampled = content.lstrip().startswith("{")
    named = _sequences(path, content, model, limit) if sampled else _lines(path, content, limit)
    texts: list[list[int]] = []
    for name, text in named:
        try:
            tokens = model.encode(text) if isinstance(text, str) else text
            tokens = tokens[:length]
            check_ids(tokens, model.vocabulary)
        except CheckpointError as error:
            raise AfternormError(f"{path}, {name}: {error}") from error
        if len(tokens) < least:
            raise AfternormError(
                f"{path}, {name}: a text of {len(tokens)} tokens has nothing to measure; it takes "
                f"{least} or more"
            )
        if len(tokens) > model.context:
            raise AfternormError(
                f"{path}, {name}: {len(tokens)} tokens; the context of {model.name} has room for "
                f"{model.context} (--length {model.context} cuts longer texts)"
            )
        texts.append(tokens)
    if not texts:
        raise AfternormError(f"{path} has no text: write one a line")
    return texts


def _lines(path: Path, content: str, limit: int | None) -> list[tuple[str, str]]:
    """Texts with what a message calls them."""
    lines = [(f"line {number}", line) for number, line in enumerate(content.split("\n"), 1)]
    return [(name, line.strip()) for name, line in lines if line.strip()][:limit]


def _sequences(
    path: Path, content: str, model: Model, limit: int | None
) -> list[tuple[str, list[int]]]:
    """Token sequences with what a message calls them."""
    try:
        sampled = json.loads(content)
    except json.JSONDecodeError as error:
        raise AfternormError(
            f"{path} begins with a brace, but is no JSON of scripts/sample_text.py: {error}"
        ) from error
    sequences = sampled.get("sequences")
    if not isinstance(sequences, list) or not all(
        isinstance(sequence, list) and all(type(token) is int for token in sequence)
        for sequence in sequences
    ):
        raise AfternormError(f'{path}: "sequences" must be lists of tokens\' numbers')
    if (name := sampled.get("model")) != model.name:
        raise AfternormError(
            f"{path} was sampled from {name!r}, not from {model.name!r}, to which its tokens mean "
            "nothing: run scripts/sample_text.py with this model"
        )
    return [(f"sequence {number}", tokens) for number, tokens in enumerate(sequences)][:limit]


def run_accuracy(
    configuration: str,
    config: Config,
    model: Model,
    texts: Sequence[Sequence[int]],
    *,
    blocks: Sequence[int],
    fractions: Sequence[int],
    schedules: Sequence[Schedule],
) -> AccuracyResult:
    """Measure all combinations, the first list's values changing slowest.

    Parameters
    ----------
    configuration, config : the accelerator, but for what formats say.
    texts : token sequences as of `read_texts`.

    Raises
    ------
    ConfigError
        If a format is impossible.
    CapacityError
        If the model does not fit.
    """
    configs = [format_config(config, *sizes) for sizes in product(blocks, fractions)]
    decodes = model.classifier is not None
    count = sum(map(len, texts)) - len(texts) if decodes else len(texts)
    measure = decoder_accuracy if decodes else encoder_accuracy
    # The matrices are small: threads of a BLAS would wait for each other most of the time.
    with threadpool_limits(limits=1):
        with progress("float64", total=count) as advance:
            prepare = decoder_reference if decodes else encoder_reference
            reference = prepare(model, texts, advance)
        formats = []
        for number, (sizes, schedule) in enumerate(product(configs, schedules), 1):
            label = (
                f"{number}/{len(configs) * len(schedules)}: block {sizes.block}, "
                f"F {sizes.fraction_bits}, {schedule}"
            )
            with progress(label, total=count) as advance:
                formats.append(measure(sizes, model, schedule, texts, reference, advance))
    return AccuracyResult(
        model=model.name,
        configuration=configuration,
        decodes=decodes,
        texts=len(texts),
        count=count,
        reference=formats[0].reference,
        formats=formats,
    )
