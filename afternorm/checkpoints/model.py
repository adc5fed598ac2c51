# SPDX-License-Identifier: Apache-2.0
"""A whole model: layers, what comes before and after them, and its words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from afternorm.checkpoints.layer import Arch, Floats, Layer, seeded_layer
from afternorm.errors import CheckpointError
from golden.reference import layer_norm, rms_norm


class Tokenizer(Protocol):
    """Texts to tokens and back; both raise CheckpointError for what has no counterpart."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text, with those that begin (and, for encoders, end) every text."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without those that only begin or end it."""


@dataclass(frozen=True, eq=False)
class Model:
    """A transformer of any of the families.

    Attributes
    ----------
    name : what the user calls it: the checkpoint's file or folder.
    arch : kind of its layers.
    layers : first to last.
    embedding : ``[vocabulary, dim]``.
    positions : ``[context, dim]``, added to the embedding (with the row of token type 0, where
        a model has types); None if layers rotate by position.
    final_gamma, final_beta : the last normalization's; no beta for LLaMA.
    classifier : ``[vocabulary, dim]``, the embedding itself if they are shared; None for encoders.
    context : the most tokens it can see.
    tokenizer : None if there is none.
    bos : tokens that begin every text; the tokenizer puts them there.
    eos : tokens that end it.
    """

    name: str
    arch: Arch
    layers: tuple[Layer, ...]
    embedding: Floats
    positions: Floats | None
    final_gamma: Floats
    final_beta: Floats | None
    classifier: Floats | None
    context: int
    tokenizer: Tokenizer | None
    bos: tuple[int, ...]
    eos: frozenset[int]

    @property
    def dim(self) -> int:
        """Features of a token."""
        return int(self.embedding.shape[1])

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return len(self.embedding)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text.

        Raises
        ------
        CheckpointError
            If there is no tokenizer, or it cannot encode the text.
        """
        return self._words().encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens.

        Raises
        ------
        CheckpointError
            If there is no tokenizer, or it does not know a token.
        """
        return self._words().decode(ids)

    def embed(self, tokens: Sequence[int], first: int = 0) -> Floats:
        """The first layer's input, ``[tokens, dim]``; the first token has position `first`.

        Raises
        ------
        CheckpointError
            If there are more tokens than the context has room for, none, or unknown ones.
        """
        if not 0 <= first <= self.context:
            raise CheckpointError(
                f"there is no position {first}: the context of {self.name} has {self.context}"
            )
        if not 1 <= len(tokens) <= self.context - first:
            before = f" after {first}" if first else ""
            raise CheckpointError(
                f"{len(tokens)} tokens{before}; the context of {self.name} has room for "
                f"1 to {self.context - first}{' more' if first else ''}"
            )
        check_ids(tokens, self.vocabulary)
        x = self.embedding[list(tokens)]
        return x if self.positions is None else x + self.positions[first : first + len(tokens)]

    def layer_input(self, tokens: Sequence[int], layer: int) -> Floats:
        """The input of a layer in float64, for a text; the last layer's output for `len(layers)`.

        Raises
        ------
        CheckpointError
            As `embed`, and if there is no such layer.
        """
        if not 0 <= layer <= len(self.layers):
            raise CheckpointError(f"there is no layer {layer}: the model has {len(self.layers)}")
        x = self.embed(tokens)
        for number in range(layer):
            x = self.layers[number].reference(x).output
        return x

    def final_norm(self, x: Floats) -> Floats:
        """The last normalization, of rows of the last layer's output."""
        eps = self.layers[-1].eps
        if self.final_beta is None:
            return rms_norm(x, self.final_gamma, eps)
        return layer_norm(x, self.final_gamma, self.final_beta, eps)

    def hidden(self, tokens: Sequence[int]) -> Floats:
        """``[tokens, dim]`` after the last normalization, in float64; errors as `embed`."""
        return self.final_norm(self.layer_input(tokens, len(self.layers)))

    def logits(self, tokens: Sequence[int]) -> Floats:
        """``[tokens, vocabulary]`` in float64.

        Raises
        ------
        CheckpointError
            As `embed`, and if this is an encoder.
        """
        return np.asarray(self.hidden(tokens) @ self.output().T)

    def output(self) -> Floats:
        """The classifier.

        Raises
        ------
        CheckpointError
            If this is an encoder, which has none.
        """
        if self.classifier is None:
            raise CheckpointError(
                f"{self.name} is an encoder: it embeds texts and cannot continue them"
            )
        return self.classifier

    def sentence(self, tokens: Sequence[int]) -> Floats:
        """The embedding of a text, ``[dim]``: the mean of all tokens, divided by its length.

        Raises
        ------
        CheckpointError
            As `embed`, and if this is no encoder.
        """
        if self.classifier is not None:
            raise CheckpointError(
                f"{self.name} is a decoder: it continues texts and cannot embed them"
            )
        mean = self.hidden(tokens).mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean))

    def greedy(self, tokens: Sequence[int], total: int) -> list[int]:
        """Continue a text with the likeliest tokens until it has `total`."""
        text = list(tokens)
        while len(text) < total:
            text.append(int(self.logits(text)[-1].argmax()))
        return text

    def _words(self) -> Tokenizer:
        if self.tokenizer is None:
            raise CheckpointError(
                f"{self.name} has no tokenizer beside it, which texts need: name one"
            )
        return self.tokenizer


def seeded_model(
    arch: Arch,
    seed: int,
    *,
    layers: int = 2,
    context: int = 40,
    vocabulary: int = 45,
    dim: int = 36,
    heads: int = 3,
    head_dim: int = 10,
    hidden: int = 50,
) -> Model:
    """A model with random weights and no tokenizer, by default small and of awkward sizes."""
    rng = np.random.default_rng([seed, layers, context, vocabulary])
    rotates, encodes = arch == "llama", arch == "bert"
    embedding = rng.normal(size=(vocabulary, dim))
    return Model(
        name=f"{arch} model, seed {seed}",
        arch=arch,
        layers=tuple(
            seeded_layer(
                arch,
                seed + number,
                dim=dim,
                heads=heads,
                kv_heads=1 if rotates else heads,
                hidden=hidden,
                head_dim=head_dim,
            )
            for number in range(layers)
        ),
        embedding=embedding,
        positions=None if rotates else rng.normal(0.0, 0.3, (context, dim)),
        final_gamma=rng.lognormal(0.0, 0.3, dim),
        final_beta=None if rotates else rng.normal(0.0, 0.1, dim),
        classifier=None if encodes else embedding,
        context=context,
        tokenizer=None,
        bos=(),
        eos=frozenset(),
    )


def check_ids(ids: Sequence[int], vocabulary: int) -> None:
    """Raise CheckpointError if there is a token that the vocabulary does not have."""
    for token in ids:
        if not 0 <= token < vocabulary:
            raise CheckpointError(f"token {token} is not in the vocabulary of {vocabulary}")


def check_text(text: str) -> None:
    """Raise CheckpointError if a text has code points that are no characters (surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(
            f"the text {text!r} cannot be encoded: {text[error.start]!r} at position "
            f"{error.start} is no Unicode character; is it UTF-8?"
        ) from error
