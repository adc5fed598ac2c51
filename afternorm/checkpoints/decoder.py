# SPDX-License-Identifier: Apache-2.0
"""Decoding in float64 with a cache of keys and values, many sequences at once."""

from collections.abc import Sequence

import numpy as np

from afternorm.checkpoints.layer import Floats, Layer
from afternorm.checkpoints.model import Model, check_ids
from afternorm.errors import CheckpointError
from golden.reference import (
    GELUS,
    layer_norm,
    rms_norm,
    rope_angles,
    rotate_by,
    silu,
    softmax,
)


class Decoder:
    """Computes what `Model.logits` does, a position at a time.

    Parameters
    ----------
    model : a decoder.
    batch : how many sequences; all are at the same position.
    length : the most positions; the model's context if None.

    Attributes
    ----------
    position : of the next tokens.

    Raises
    ------
    CheckpointError
        If the model is an encoder, or `length` is more than its context.
    """

    def __init__(self, model: Model, batch: int, *, length: int | None = None) -> None:
        length = model.context if length is None else length
        if batch < 1:
            raise CheckpointError(f"{batch} sequences: a batch has at least one")
        if not 1 <= length <= model.context:
            raise CheckpointError(
                f"{length} tokens; the context of {model.name} has room for 1 to {model.context}"
            )
        self.model = model
        self.batch = batch
        self.length = length
        self.position = 0
        self._classifier = model.output()
        self._caches: list[tuple[Floats, Floats]] = []
        for layer in model.layers:
            shape = (batch, layer.kv_heads, length, layer.head_dim)
            self._caches.append((np.empty(shape), np.empty(shape)))

    def step(self, tokens: Sequence[int]) -> Floats:
        """Read the next token of each sequence: ``[batch, vocabulary]`` logits of the one after.

        Raises
        ------
        CheckpointError
            If there is not a token a sequence, one is unknown, or no position is left.
        """
        if self.position == self.length:
            raise CheckpointError(f"all {self.length} positions of the decoder are taken")
        if len(tokens) != self.batch:
            raise CheckpointError(f"{len(tokens)} tokens for {self.batch} sequences")
        check_ids(tokens, self.model.vocabulary)
        x = self.model.embedding[list(tokens)]
        if self.model.positions is not None:
            x = x + self.model.positions[self.position]
        for layer, (keys, values) in zip(self.model.layers, self._caches, strict=True):
            x = self._layer(layer, x, keys, values)
        self.position += 1
        return np.asarray(self.model.final_norm(x) @ self._classifier.T)

    def _layer(self, layer: Layer, x: Floats, keys: Floats, values: Floats) -> Floats:
        w = layer.weights
        if layer.arch == "llama":
            n = rms_norm(x, w["norm1.gamma"], layer.eps)
            angles = rope_angles(self.position + 1, layer.head_dim, layer.theta)[-1:]
            q, k = rotate_by(n @ w["wq"].T, angles), rotate_by(n @ w["wk"].T, angles)
            x = x + self._attend(layer, q, k, n @ w["wv"].T, keys, values) @ w["wo"].T
            n = rms_norm(x, w["norm2.gamma"], layer.eps)
            hidden = silu(n @ w["w_gate"].T) * (n @ w["w_up"].T)
            return np.asarray(x + hidden @ w["w_down"].T)
        n = layer_norm(x, w["norm1.gamma"], w["norm1.beta"], layer.eps)
        q, k, v = (n @ w[f"w{name}"].T + w[f"b{name}"] for name in "qkv")
        x = x + self._attend(layer, q, k, v, keys, values) @ w["wo"].T + w["bo"]
        n = layer_norm(x, w["norm2.gamma"], w["norm2.beta"], layer.eps)
        hidden = GELUS[layer.activation](n @ w["w_up"].T + w["b_up"])
        return np.asarray(x + hidden @ w["w_down"].T + w["b_down"])

    def _attend(
        self, layer: Layer, q: Floats, k: Floats, v: Floats, keys: Floats, values: Floats
    ) -> Floats:
        """Keep the new keys and values, and attend to all so far; heads are side by side."""
        end = self.position + 1
        shape = (self.batch, layer.kv_heads, layer.head_dim)
        keys[:, :, self.position] = k.reshape(shape)
        values[:, :, self.position] = v.reshape(shape)
        # Heads of one group share their keys: rows of one product.
        grouped = q.reshape(self.batch, layer.kv_heads, -1, layer.head_dim)
        scores = grouped @ keys[:, :, :end].swapaxes(2, 3) / np.sqrt(layer.head_dim)
        mixed: Floats = softmax(scores) @ values[:, :, :end]
        return mixed.reshape(self.batch, -1)


def continue_greedily(model: Model, prompts: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """The likeliest continuation of each prompt: at most so many tokens, the last one in `eos`
    if the text ends.  Prompts of equal length are decoded together.

    Raises
    ------
    CheckpointError
        If a prompt is empty, or with `most` tokens more does not fit the context.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    for length in sorted({len(prompt) for prompt in prompts}):
        numbers = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
        if length == 0:
            raise CheckpointError(f"prompt {numbers[0]} is empty: there is nothing to continue")
        # The last token that is generated is never read.
        decoder = Decoder(model, len(numbers), length=length + most - 1)
        for column in range(length):
            logits = decoder.step([prompts[i][column] for i in numbers])
        going = set(numbers)
        for count in range(most):
            tokens = logits.argmax(axis=1).tolist()
            for i, token in zip(numbers, tokens, strict=True):
                if i in going:
                    answers[i].append(token)
                    if token in model.eos:
                        going.remove(i)
            if not going or count == most - 1:
                break
            logits = decoder.step(tokens)
    return answers
