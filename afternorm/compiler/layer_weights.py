# SPDX-License-Identifier: Apache-2.0
"""A layer's constants as its kernels take them: folded, sliced over the tiles, in pieces.

Offline, in float64: gamma is folded into the weights (where normalization is deferred, the
subtraction of the mean, too), beta and the biases into one bias, log2(e)/sqrt(head_dim) into the
queries, and the values' bias through the output projection into its bias, for the weights of a
softmax sum up to one.
"""

from typing import Literal

import numpy as np

from afternorm.checkpoints import Floats, Layer
from afternorm.compiler.buffers import (
    Spread,
    Table,
    Weights,
    ceil_div,
    grouped,
    hollow,
    pieces,
    round_up,
    scaled,
    slices,
)
from afternorm.compiler.builder import Builder
from afternorm.errors import CapacityError
from golden.reference import rope_angles

Schedule = Literal["deferred", "interleaved", "serial", "none"]
SCHEDULES: tuple[Schedule, ...] = ("deferred", "interleaved", "serial", "none")


def normalizes_first(schedule: Schedule) -> bool:
    """Whether rows are normalized before they are multiplied."""
    return schedule in ("serial", "interleaved")


def centre(weights: Floats) -> Floats:
    """Weights with the subtraction of their input's mean folded in."""
    return np.asarray(weights - weights.mean(axis=1, keepdims=True))


class LayerWeights:
    """One layer's constants in a builder's buffers, and how its features lie in the tiles.

    Parameters
    ----------
    builder : takes the buffers.
    layer : weights and kind.
    schedule : decides what is folded.

    Attributes
    ----------
    heads, kv_heads, sharing : a tile's query and key heads, and how many queries share a key.
    head_parts : a head's features in pieces that an accumulator bank takes: (first, count).
    head_blocks, head_lanes : a head's features in whole blocks, and rounded up to lanes.
    packed : heads lie side by side in blocks of the attention's result.
    model, hidden, mixed : features of the model, of the feed-forward part and of the attention's
        result in the tiles.
    wq, wk, wv, wo, w_up, w_down : weights; `w_up` has gate and up projection interleaved, where
        there is a gate, cut by `gates`.
    gates : pieces of the gated features: first, count, first column in `w_up`, columns from gate
        to up.

    Raises
    ------
    CapacityError
        If a gated pair of blocks does not fit the accumulators.
    """

    def __init__(self, builder: Builder, layer: Layer, schedule: Schedule) -> None:
        self.b, self.layer = builder, layer
        self.config = c = builder.config
        self.folds_mean = not normalizes_first(schedule)
        self.centred = layer.arch != "llama"
        self.post_norm = layer.arch == "bert"

        # Key heads in slices over the tiles, each with the query heads that share it.
        self.sharing = layer.heads // layer.kv_heads
        self.kv_heads = ceil_div(layer.kv_heads, c.tiles)
        self.heads = self.kv_heads * self.sharing
        self.head_dim = layer.head_dim
        self.head_parts = list(pieces(self.head_dim, c.acc_width))
        self.head_blocks = ceil_div(self.head_dim, c.block)
        self.head_lanes = round_up(self.head_dim, c.lanes)
        self.packed = self.heads > 1 and self.head_lanes % c.block != 0

        self.model = slices(layer.dim, c.tiles, c.block)
        self.hidden = slices(layer.hidden, c.tiles, c.block)
        stride = self.head_lanes if self.packed else self.head_blocks * c.block
        self.mixed = self.spread(layer.heads, self.heads, stride, c.block)
        self._data()

    @property
    def model_blocks(self) -> int:
        """Blocks of a tile's slice of the model's features."""
        return self.model.width // self.config.block

    @property
    def model_words(self) -> int:
        """Words of a tile's slice of the model's features."""
        return self.model.width // self.config.lanes

    def spread(self, heads: int, per_tile: int, stride: int, unit: int) -> Spread:
        """Heads over the tiles, `stride` positions apart, in whole units."""
        width = round_up(per_tile * stride, unit)
        return grouped(heads, self.head_dim, per_tile, self.config.tiles, stride, width)

    def columns(self, head: int, part: tuple[int, int]) -> tuple[int, int]:
        """A part of a tile's head among the columns of all: (first, count)."""
        return head * self.head_dim + part[0], part[1]

    def _data(self) -> None:
        c, layer, w = self.config, self.layer, self.layer.weights
        first, first_bias = self._fold(["wq", "wk", "wv"], "norm1")
        heads = self.spread(layer.heads, self.heads, self.head_dim, 1)
        kv = self.spread(layer.kv_heads, self.kv_heads, self.head_dim, 1)
        to_log2 = np.log2(np.e) / np.sqrt(self.head_dim)
        parts, each, model = (
            self.head_parts,
            self.head_dim,
            list(pieces(ceil_div(layer.dim, c.tiles), c.acc_width)),
        )
        queries = [self.columns(head, part) for head in range(self.heads) for part in parts]
        keys = [self.columns(head, part) for head in range(self.kv_heads) for part in parts]
        self.wq = self._weights(scaled(first["wq"], to_log2), heads, self.model, queries)
        self.wk = self._weights(first["wk"], kv, self.model, keys)
        values = list(pieces(self.kv_heads * each, c.rows_max))
        self.wv = self._weights(first["wv"], kv, self.model, values)
        self.wo = self._weights(w["wo"], self.model, self.mixed, model)
        second, second_bias = self._fold(["w_up"] + ["w_gate"] * (not self.centred), "norm2")
        self.value_bias = np.zeros(layer.kv_heads * each)
        self.gates: list[tuple[int, int, int, int]] = []
        if self.centred:
            up = list(pieces(ceil_div(layer.hidden, c.tiles), c.acc_width))
            self.w_up = self._weights(second["w_up"], self.hidden, self.model, up)
            self._biases(first_bias, second_bias)
        else:
            self.w_up = self._gated(second["w_gate"], second["w_up"])
        self.w_down = self._weights(w["w_down"], self.model, self.hidden, model)

    def _biases(self, first: dict[str, Floats], second: dict[str, Floats]) -> None:
        b, c, layer, w = self.b, self.config, self.layer, self.layer.weights
        to_log2 = np.log2(np.e) / np.sqrt(self.head_dim)
        lanes = self.spread(layer.heads, self.heads, self.head_lanes, c.lanes)
        kv_lanes = self.spread(layer.kv_heads, self.kv_heads, self.head_lanes, c.lanes)
        self.bq = b.vectors(lanes.tiles(first["wq"] * to_log2, 0))
        self.bk = b.vectors(kv_lanes.tiles(first["wk"], 0))
        self.b_up = b.vectors(self.hidden.tiles(second["w_up"], 0))
        self.value_bias = first["wv"]
        by_head = self.value_bias.reshape(-1, self.head_dim)
        out_bias = w["bo"] + w["wo"] @ np.repeat(by_head, self.sharing, axis=0).ravel()
        down_bias = w["b_down"]
        if self.post_norm:
            out_bias = out_bias + w["norm1.beta"]
            down_bias = down_bias + w["norm2.beta"]
        self.residual_bias = [
            b.vectors(self.model.tiles(bias, 0)) for bias in (out_bias, down_bias)
        ]
        self.residual_gamma: list[Table] = []
        if self.post_norm:
            self.residual_gamma = [
                b.vectors(self.model.tiles(w[name], 0)) for name in ("norm1.gamma", "norm2.gamma")
            ]

    def _fold(self, names: list[str], norm: str) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Weights after a normalization, with what can be folded; and their biases."""
        w, folded, biases = self.layer.weights, {}, {}
        for name in names:
            folded[name] = scaled(w[name], w[f"{norm}.gamma"])
            if self.centred:
                bias = {"wq": "bq", "wk": "bk", "wv": "bv", "w_up": "b_up"}[name]
                biases[name] = w[bias] + w[name] @ w[f"{norm}.beta"]
                if self.folds_mean and not hollow(w[name]):
                    folded[name] = centre(folded[name])
        return folded, biases

    def _weights(
        self, weights: Floats, out: Spread, into: Spread, columns: list[tuple[int, int]]
    ) -> Weights:
        """A weight matrix: every tile its slice of `out`, all of `into`."""
        return self.b.weights(out.tiles(into.flat(weights, 1), 0), columns)

    def _gated(self, gate: Floats, up: Floats) -> Weights:
        """Gate and up projection, interleaved: what one bank holds of both side by side."""
        c = self.config
        width = c.acc_width // 2 // c.block * c.block
        if not width:
            raise CapacityError(
                f"a gated feed-forward layer needs accumulators of two blocks, acc_width >= "
                f"{2 * c.block}, not {c.acc_width}"
            )
        each = ceil_div(self.layer.hidden, c.tiles)
        both = [self.hidden.tiles(self.model.flat(part, 1), 0) for part in (gate, up)]
        columns, first = [], 0
        for start, count in pieces(each, width):
            padded = round_up(count, c.lanes)
            self.gates.append((start, count, first, padded))
            columns += [both[0][:, start : start + padded], both[1][:, start : start + count]]
            first += padded + count
        taken = [(begin, padded + count) for _, count, begin, padded in self.gates]
        if all(map(hollow, columns)):
            interleaved = np.broadcast_to(0.0, (c.tiles, first, self.model.width * c.tiles))
        else:
            interleaved = np.concatenate(columns, axis=1)
        return self.b.weights(interleaved, taken)

    @property
    def up_columns(self) -> list[tuple[int, int]]:
        """The hidden features of a tile, in pieces that an accumulator bank takes."""
        if not self.centred:
            return [(start, count) for start, count, _, _ in self.gates]
        return list(pieces(ceil_div(self.layer.hidden, self.config.tiles), self.config.acc_width))

    def rotation(self, positions: int) -> tuple[Floats, Floats]:
        """Cosines, and sines with the sign of a rotation of adjacent features, by position."""
        angles = rope_angles(positions, self.head_dim, self.layer.theta)
        tables = np.zeros((2, positions, self.head_lanes))
        tables[0, :, : self.head_dim] = np.repeat(np.cos(angles), 2, axis=1)
        tables[1, :, 0 : self.head_dim : 2] = -np.sin(angles)
        tables[1, :, 1 : self.head_dim : 2] = np.sin(angles)
        return tables[0], tables[1]
