# SPDX-License-Identifier: Apache-2.0
"""One transformer layer as a program, under one of four schedules.

`deferred`
    Products start at once on what is not normalized yet; the statistics are taken from the
    blocks as they stream into the array; the scale is applied to what leaves it.
`serial`
    The conventional order: all rows' statistics are taken in a pass of their own, a vector pass
    normalizes, then comes the product; softmax divides the probabilities before their product
    with the values.
`interleaved`
    As `serial`, but a group of rows is normalized while the product of the one before runs.
`none`
    As `deferred`, without statistics, reductions and scales: what normalization costs is measured
    against it.  Its results mean nothing.

Tiles have slices of the output features, and heads; all run the same instructions on data of
their own.  What the next product needs whole is gathered.

Offline, in float64: gamma is folded into the weights (where normalization is deferred, the
subtraction of the mean, too), beta and the biases into one bias, log2(e)/sqrt(head_dim) into the
queries, and the values' bias through the output projection into its bias, for the weights of a
softmax sum up to one.

A BERT layer takes and returns the un-normalized sums before its LayerNorms (see
`golden.reference.bert_layer`).
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np

from afternorm.checkpoints import Floats, Layer
from afternorm.compiler.attention import Attention, Softmax
from afternorm.compiler.builder import (
    Banks,
    Builder,
    Matrix,
    Shared,
    Spread,
    Table,
    ceil_div,
    grouped,
    pieces,
    round_up,
    slices,
)
from afternorm.config import Config
from afternorm.errors import CapacityError
from afternorm.isa import Function, Opcode, Operand, Pair, Scale, Source
from afternorm.job import Assemble, Job, Memories
from golden.reference import rope_angles

Rows = tuple[int, int]
"""First row and number of rows."""
Schedule = Literal["deferred", "interleaved", "serial", "none"]
SCHEDULES: tuple[Schedule, ...] = ("deferred", "interleaved", "serial", "none")


def row_groups(config: Config, tokens: int) -> list[Rows]:
    """Rows in groups of (first, count): two at least, where each fills the array's pipeline."""
    smallest = max(config.block, config.columns)
    size = min(config.rows_max, max(smallest, round_up(ceil_div(tokens, 2), config.block)))
    return list(pieces(tokens, size))


def compile_layer(
    config: Config,
    layer: Layer,
    x: Floats,
    schedule: Schedule,
    *,
    length: int | None = None,
) -> Job:
    """The job that computes `layer` of the rows `x`.

    Parameters
    ----------
    config : the accelerator.
    layer : weights and kind.
    schedule : one of `SCHEDULES`.
    x : ``[tokens, features]``, the layer's input (for BERT, see `golden.reference.bert_layer`).
    length : keys from here on are masked (BERT); all are seen by default.

    Returns
    -------
    Job
        Its outputs are named as `golden.reference.Results`; `k` and `q` as there, whatever was
        folded.

    Raises
    ------
    CapacityError
        If it does not fit the accelerator; the message says what is needed of each memory.
    ValueError
        If the schedule is unknown, or `x` or `length` do not fit the layer.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, not {schedule!r}")
    if x.ndim != 2 or x.shape[1] != layer.dim or not len(x):
        raise ValueError(f"x has shape {x.shape}, not [tokens, {layer.dim}]")
    if length is not None and (layer.arch != "bert" or not 1 <= length <= len(x)):
        raise ValueError(f"length={length} of {len(x)} tokens of a {layer.arch} layer")
    try:
        return _Layer(config, layer, x, schedule, length, keep=True).compile()
    except CapacityError:
        # The residual in place saves two thirds of the vector memory that it takes.
        return _Layer(config, layer, x, schedule, length, keep=False).compile()


class _Layer:
    """Compiles one layer; `keep`: intermediate sums get places of their own."""

    def __init__(
        self,
        config: Config,
        layer: Layer,
        x: Floats,
        schedule: Schedule,
        length: int | None,
        *,
        keep: bool,
    ) -> None:
        self.config = c = config
        self.layer, self.x, self.schedule = layer, x, schedule
        self.b = Builder(c)
        self.tokens = len(x)
        self.length = self.tokens if length is None else length
        self.groups = row_groups(c, self.tokens)
        self.normalizes_first = schedule in ("serial", "interleaved")
        self.scaled = schedule == "deferred"
        self.centred = layer.arch != "llama"
        self.mode = Scale.LAYER if self.centred else Scale.RMS
        self.post_norm = layer.arch == "bert"
        self.keep = keep

        # Heads: key heads in slices over the tiles, each with the query heads that share it.
        self.sharing = layer.heads // layer.kv_heads
        self.kv_heads = ceil_div(layer.kv_heads, c.tiles)
        self.heads = self.kv_heads * self.sharing
        self.head_dim = layer.head_dim
        if self.head_dim > c.acc_width:
            raise CapacityError(
                f"a head of {self.head_dim} features does not fit acc_width={c.acc_width}"
            )
        self.head_blocks = ceil_div(self.head_dim, c.block)
        self.head_lanes = round_up(self.head_dim, c.lanes)
        self.packed = self.heads > 1 and self.head_lanes % c.block != 0
        """Heads lie side by side in blocks of the attention's result."""

        self.model = slices(layer.dim, c.tiles, c.block)
        self.hidden = slices(layer.hidden, c.tiles, c.block)
        stride = self.head_lanes if self.packed else self.head_blocks * c.block
        self.mixed = self._heads(layer.heads, self.heads, stride, c.block)
        self._banks = Banks(range(c.acc_banks))
        self._places()
        self._data()

    def _heads(self, heads: int, per_tile: int, stride: int, unit: int) -> Spread:
        width = round_up(per_tile * stride, unit)
        return grouped(heads, self.head_dim, per_tile, self.config.tiles, stride, width)

    # Memories

    def _places(self) -> None:
        b, c, tokens = self.b, self.config, self.tokens
        model_blocks = self.model.width // c.block
        words = self.model.width // c.lanes
        self.in_blocks = b.shared(tokens, model_blocks)
        self.sum_blocks = b.shared(tokens, model_blocks)
        self.out_blocks = b.shared(tokens, model_blocks)
        if self.normalizes_first:
            # What is normalized is gathered; the sums themselves only feed the statistics.
            self.in_normal = b.shared(tokens, model_blocks)
            self.sum_normal = b.shared(tokens, model_blocks)
        self.q = b.streamed(tokens, self.heads * self.head_blocks)
        self.k = b.stationary(tokens, self.kv_heads * self.head_blocks)
        self.v = b.stationary(self.kv_heads * self.head_dim, ceil_div(tokens, c.block))
        self.mixed_blocks = b.shared(tokens, self.mixed.width // c.block)
        self.hidden_blocks = b.shared(tokens, self.hidden.width // c.block)
        self.in_table = b.table(tokens, words)
        self.sum_table = b.table(tokens, words) if self.keep else self.in_table
        self.out_table = b.table(tokens, words) if self.keep else self.in_table
        # The sum, normalized (BERT) and with the next projection's bias: what it is added to.
        prepared = self.centred and self.keep
        self.in_residual = b.table(tokens, words) if prepared else self.in_table
        self.sum_residual = b.table(tokens, words) if prepared else self.sum_table
        if self.packed:
            self.mixed_table = b.table(tokens, self.heads * self.head_lanes // c.lanes)
        self.in_scales, self.sum_scales = b.scale_rows(tokens), b.scale_rows(tokens)
        rows = max(count for _, count in self._scanned())
        self._stat_slots = [b.stat_rows(rows) for _ in self._scanned()[:2]]
        self._stat_next = 0
        self.attention = Attention(
            b,
            q=self.q,
            k=self.k,
            v=self.v,
            heads=self.heads,
            sharing=self.sharing,
            head_dim=self.head_dim,
            groups=self.groups,
            length=self.length,
            keys=self.length,
            split=False,
            causal=self.layer.arch != "bert",
            softmax=self._softmax(),
            finish=self._finish_head,
        )

    def _softmax(self) -> Softmax:
        if self.normalizes_first:
            return "serial"
        return "deferred" if self.scaled else "none"

    def _data(self) -> None:
        b, c, layer, w = self.b, self.config, self.layer, self.layer.weights
        x = b.fmt.round(self.x)
        slices_of_x = self.model.tiles(x, 1)
        if self.normalizes_first:
            b.load_blocks(self.in_blocks.local, slices_of_x)
        else:
            b.load_blocks(self.in_blocks.full, self.model.flat(x, 1))
        b.load_table(self.in_table, slices_of_x)

        first, first_bias = self._fold(["wq", "wk", "wv"], "norm1")
        heads = self._heads(layer.heads, self.heads, self.head_dim, 1)
        kv = self._heads(layer.kv_heads, self.kv_heads, self.head_dim, 1)
        to_log2 = np.log2(np.e) / np.sqrt(self.head_dim)
        self.wq = self._weights(first["wq"] * to_log2, heads, self.model)
        self.wk = self._weights(first["wk"], kv, self.model)
        self.wv = self._weights(first["wv"], kv, self.model)
        self.wo = self._weights(w["wo"], self.model, self.mixed)
        second, second_bias = self._fold(["w_up"] + ["w_gate"] * (not self.centred), "norm2")
        self.w_down = self._weights(w["w_down"], self.model, self.hidden)
        self.value_bias = np.zeros(layer.kv_heads * self.head_dim)
        if not self.centred:
            self._gated(second["w_gate"], second["w_up"])
            self._rotation()
            return
        self.w_up = self._weights(second["w_up"], self.hidden, self.model)
        lanes = self._heads(layer.heads, self.heads, self.head_lanes, c.lanes)
        kv_lanes = self._heads(layer.kv_heads, self.kv_heads, self.head_lanes, c.lanes)
        self.bq = b.vectors(lanes.tiles(first_bias["wq"] * to_log2, 0))
        self.bk = b.vectors(kv_lanes.tiles(first_bias["wk"], 0))
        self.b_up = b.vectors(self.hidden.tiles(second_bias["w_up"], 0))
        self.value_bias = first_bias["wv"]
        out_bias = (
            w["bo"]
            + w["wo"]
            @ np.repeat(self.value_bias.reshape(-1, self.head_dim), self.sharing, axis=0).ravel()
        )
        down_bias = w["b_down"]
        if self.post_norm:
            out_bias = out_bias + w["norm1.beta"]
            down_bias = down_bias + w["norm2.beta"]
        self.residual_bias = [
            b.vectors(self.model.tiles(bias, 0)) for bias in (out_bias, down_bias)
        ]
        if self.post_norm:
            self.residual_gamma = [
                b.vectors(self.model.tiles(w[name], 0)) for name in ("norm1.gamma", "norm2.gamma")
            ]
        b.slack(c.block // c.lanes)

    def _fold(self, names: list[str], norm: str) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Weights after a normalization, with what can be folded; and their biases."""
        w, folded, biases = self.layer.weights, {}, {}
        for name in names:
            folded[name] = w[name] * w[f"{norm}.gamma"]
            if self.centred:
                bias = {"wq": "bq", "wk": "bk", "wv": "bv", "w_up": "b_up"}[name]
                biases[name] = w[bias] + w[name] @ w[f"{norm}.beta"]
                if not self.normalizes_first:
                    folded[name] -= folded[name].mean(axis=1, keepdims=True)
        return folded, biases

    def _weights(self, weights: Floats, out: Spread, into: Spread) -> Matrix:
        """A weight matrix: every tile its slice of `out`, all of `into`."""
        return self.b.weights(out.tiles(into.flat(weights, 1), 0))

    def _gated(self, gate: Floats, up: Floats) -> None:
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
        columns, self.gates = [], []
        first = 0
        for start, count in pieces(each, width):
            padded = round_up(count, c.lanes)
            self.gates.append((start, count, first, padded))
            columns += [part[:, start : start + padded] for part in both]
            first += 2 * padded
        self.w_gated = self.b.weights(np.concatenate(columns, axis=1))

    def _rotation(self) -> None:
        """Cosines, and sines with the sign of a rotation, for adjacent features."""
        b, c = self.b, self.config
        angles = rope_angles(self.tokens, self.head_dim, self.layer.theta)
        tables = np.zeros((2, self.tokens, self.head_lanes))
        tables[0, :, : self.head_dim] = np.repeat(np.cos(angles), 2, axis=1)
        tables[1, :, 0 : self.head_dim : 2] = -np.sin(angles)
        tables[1, :, 1 : self.head_dim : 2] = np.sin(angles)
        self.cos, self.sin = (b.table(self.tokens, self.head_lanes // c.lanes) for _ in range(2))
        b.slack(c.block // c.lanes)
        b.load_table(self.cos, tables[0])
        b.load_table(self.sin, tables[1])

    # Program

    def compile(self) -> Job:
        """Emit the program and name its results."""
        self.b.place()
        last = len(self.groups) - 1
        for number, rows in enumerate(self._scanned()):
            if self.schedule == "serial" or (self.schedule == "interleaved" and number == 0):
                self._normalize_in(rows)
        self._attention()
        if self.schedule == "serial":
            self._output(last)
            for rows in self._scanned():
                self._normalize_sum(rows)
        columns = self._up_columns()
        for group, rows in enumerate(self.groups):
            for number in range(len(columns)):
                # The last group's sum comes late: it is hidden behind the first group's products.
                due = 0 if last == 0 else len(columns) - 1
                if self.schedule != "serial" and group == 0 and number == due:
                    self._output(last)
                self._up(rows, number)
            self._prepare(1, rows)
        for rows in self.groups:
            self._down(rows)
        self._name_outputs()
        return self.b.job(
            self._macs(),
            schedule=self.schedule,
            arch=self.layer.arch,
            tokens=self.tokens,
            kept=self.keep,
        )

    def _attention(self) -> None:
        """The attention; queries, keys and values are made just before, outputs after it.

        So the passes that drain them are spread between those of the attention.
        """
        attention, units = self.attention, self.attention.units
        hooks: dict[int, list[Callable[[], None]]] = {}

        def at(unit: int, hook: Callable[[], None]) -> None:
            if unit < 0:
                hook()
            else:
                hooks.setdefault(attention.boundary(unit), []).append(hook)

        groups: list[list[int]] = [[] for _ in self.groups]
        for number, unit in enumerate(units):
            if unit.first:
                groups[unit.group].append(number)
        for group, heads in enumerate(groups):
            for head, number in enumerate(heads):
                # Two units before the scores, so that they have left the accumulators by then.
                due = number - attention.lead - 2
                begins = head % self.sharing == 0
                if begins and not attention.causal and group == 0:
                    # Keys of all rows are needed at once.
                    for part, _ in enumerate(self.groups):
                        at(due - 1, partial(self._project_heads, part, None, head // self.sharing))
                key = head // self.sharing if begins and attention.causal else None
                at(due, partial(self._project_heads, group, head, key))
                if head == 0 and (attention.causal or group == 0):
                    rows = self.groups[group] if attention.causal else (0, self.tokens)
                    at(due, partial(self._values, rows))
        for group, heads in enumerate(groups):
            at(heads[0], partial(self._prepare, 0, self.groups[group]))
            if group > 0:
                at(heads[min(3, len(heads) - 1)], partial(self._output, group - 1))
        everything, self._banks = self._banks, attention.other_banks
        attention.run(hooks)
        self._banks = everything

    # Normalization

    def _scanned(self) -> list[Rows]:
        """Rows whose scales are made at once."""
        if self.schedule == "serial":
            return list(pieces(self.tokens, self.config.rows_max))
        return self.groups

    def _stat_slot(self) -> int:
        self._stat_next += 1
        return self._stat_slots[self._stat_next % len(self._stat_slots)]

    def _reduce(self, rows: Rows, stat: int, scales: int) -> None:
        self.b.reduce(
            self.mode,
            rows[1],
            stat,
            scales + rows[0],
            tree=True,
            d=self.layer.dim,
            eps=self.layer.eps,
        )

    def _tapped(self) -> tuple[int, dict[str, int]]:
        """A statistics slot, and the fields of a product that fills it from a sum's blocks."""
        slot = self._stat_slot()
        return slot, self.b.statistics(slot, self.in_blocks.local.blocks)

    def _row_scale(self, scales: int, rows: Rows) -> dict[str, int]:
        """Fields of a pass over a product of what is not normalized yet."""
        if not self.scaled:
            return {}
        return {"a": Operand.ROW_SCALE, "scale_base": scales + rows[0]}

    def _normalize_in(self, rows: Rows) -> None:
        self._normalize(
            rows, self.in_blocks, self.in_scales, self.in_table, self.in_normal, self.in_residual
        )

    def _normalize_sum(self, rows: Rows) -> None:
        self._normalize(
            rows,
            self.sum_blocks,
            self.sum_scales,
            self.sum_table,
            self.sum_normal,
            self.sum_residual,
        )

    def _normalize(
        self, rows: Rows, blocks: Shared, scales: int, table: Table, normal: Shared, residual: Table
    ) -> None:
        """The conventional way: statistics in a pass of their own, then scale, then gather."""
        b, slot = self.b, self._stat_slot()
        b.emit(
            Opcode.SCAN,
            rows=rows[1],
            blocks=blocks.local.blocks,
            a_base=blocks.local.at(rows[0]),
            a_row=1,
            a_block=blocks.local.rows,
            stat_base=slot,
            stat_first=1,
            stat_squares=1,
        )
        self._reduce(rows, slot, scales)
        fields = self._affine(scales, rows) | b.to_blocks(normal.local, rows[0])
        if self.post_norm:
            fields |= b.to_table(residual, rows[0])
        self._table_pass(rows, table, **fields)
        b.publish(normal, rows)

    def _affine(self, scales: int, rows: Rows) -> dict[str, int]:
        """Fields of a pass that normalizes."""
        fields = {"a": Operand.ROW_SCALE, "scale_base": scales + rows[0]}
        return fields | ({"b": Operand.ROW_SCALE} if self.centred else {})

    def _table_pass(self, rows: Rows, table: Table, **fields: int) -> None:
        """A vector pass over a tile's slice of rows of floats."""
        self.b.vector(
            rows[1],
            ceil_div(self.layer.dim, self.config.tiles),
            Source.VECTOR,
            x_base=table.at(rows[0]),
            x_row=table.row,
            **fields,
        )

    def _prepare(self, which: int, rows: Rows) -> None:
        """What a projection is added to: the sum or (BERT) what is normalized; plus the bias."""
        if not self.centred:
            return
        b = self.b
        source, target, scales = (
            (self.in_table, self.in_residual, self.in_scales),
            (self.sum_table, self.sum_residual, self.sum_scales),
        )[which]
        fields = b.add_vector(self.residual_bias[which])
        if self.post_norm and self.schedule != "none":
            if not self.normalizes_first:
                self._table_pass(
                    rows, source, **self._affine(scales, rows), **b.to_table(target, rows[0])
                )
            gamma = self.residual_gamma[which]
            fields |= {"a": Operand.VECTOR, "p_base": gamma.at(0), "p_row": 0}
            source = target
        self._table_pass(rows, source, **fields, **b.to_table(target, rows[0]))

    # Products

    @property
    def _x(self) -> Matrix:
        """What the first products multiply."""
        return (self.in_normal if self.normalizes_first else self.in_blocks).full

    def _project_heads(self, group: int, query: int | None, key: int | None) -> None:
        """A head's queries, keys, or both; statistics of the rows with the first keys."""
        b, c, rows = self.b, self.config, self.groups[group]
        if self.schedule == "interleaved" and key == 0 and group + 1 < len(self.groups):
            self._normalize_in(self.groups[group + 1])  # one group ahead of its product
        parts = []
        if key is not None:
            parts.append((self.wk, key, self.k, self.bk if self.centred else None))
        if query is not None:
            parts.append((self.wq, query, self.q, self.bq if self.centred else None))
        # Both in one bank, if it has room for whole blocks of both.
        apart = round_up(self.head_dim, c.columns)
        together = apart + self.head_blocks * c.block <= c.acc_width
        for some in [parts] if together else [[part] for part in parts]:
            bank = self._bank()
            for place, (weights, head, _, _) in enumerate(some):
                columns = (head * self.head_dim, self.head_dim)
                tapped: dict[str, int] = {}
                if weights is self.wk and key == 0 and self.scaled:
                    slot, tapped = self._tapped()
                first = place * apart // c.columns
                b.product(self._x, rows, weights, columns, bank, acc_tile=first, **tapped)
                if tapped:
                    self._reduce(rows, slot, self.in_scales)
            for place, (_, head, to, bias) in enumerate(some):
                b.vector(
                    rows[1],
                    self.head_dim,
                    Source.ACC,
                    bank=bank,
                    acc_tile=place * apart // c.columns,
                    **self._row_scale(self.in_scales, rows),
                    **self._position(rows, head, bias),
                    **b.to_blocks(to, rows[0], head * self.head_blocks),
                )

    def _position(self, rows: Rows, head: int, bias: Table | None) -> dict[str, int]:
        """Fields of a pass that rotates a head, or adds its bias."""
        if bias is not None:
            return self.b.add_vector(bias, head * self.head_lanes // self.config.lanes)
        return {
            "pair": Pair.ROTATE,
            "p_base": self.cos.at(rows[0]),
            "p_row": self.cos.row,
            "q_base": self.sin.at(rows[0]),
            "q_row": self.sin.row,
        }

    def _bank(self) -> int:
        return self._banks.take()

    def _values(self, rows: Rows) -> None:
        """Values, transposed: weights stream, rows are stationary; scaled by column."""
        b, c = self.b, self.config
        for first, count in pieces(rows[1], c.acc_width):
            tokens = (rows[0] + first, count)
            for features in pieces(self.v.rows, c.rows_max):
                bank = self._bank()
                b.product(self.wv, features, self._x, tokens, bank)
                scale = {}
                if self.scaled:
                    scale = {"a": Operand.COLUMN_SCALE, "scale_base": self.in_scales + tokens[0]}
                b.vector(
                    features[1],
                    count,
                    Source.ACC,
                    bank=bank,
                    **scale,
                    **b.to_blocks(self.v, features[0], tokens[0] // c.block),
                )

    def _finish_head(self, group: int, head: int, bank: int, scale: dict[str, int]) -> None:
        """Drain a head's attention; after the last one, make blocks of all and gather them."""
        b, c, rows = self.b, self.config, self.groups[group]
        fields = (
            b.to_table(self.mixed_table, rows[0], head * self.head_lanes // c.lanes)
            if self.packed
            else b.to_blocks(self.mixed_blocks.local, rows[0], head * self.head_blocks)
        )
        b.vector(rows[1], self.head_dim, Source.ACC, bank=bank, **scale, **fields)
        if head + 1 < self.heads:
            return
        if self.packed:
            b.vector(
                rows[1],
                self.heads * self.head_lanes,
                Source.VECTOR,
                x_base=self.mixed_table.at(rows[0]),
                x_row=self.mixed_table.row,
                **b.to_blocks(self.mixed_blocks.local, rows[0]),
            )
        b.publish(self.mixed_blocks, rows)

    def _project(
        self, rows: Rows, a: Shared, weights: Matrix, plus: Table, table: Table, blocks: Shared
    ) -> None:
        """A projection back to the model's features, added to the residual."""
        b, c = self.b, self.config
        for start, count in pieces(ceil_div(self.layer.dim, c.tiles), c.acc_width):
            bank, word = self._bank(), start // c.lanes
            b.product(a.full, rows, weights, (start, count), bank)
            b.vector(
                rows[1],
                count,
                Source.ACC,
                bank=bank,
                **b.add(plus, rows[0], word),
                **b.to_table(table, rows[0], word),
                **b.to_blocks(blocks.local, rows[0], start // c.block),
            )
            if not self.normalizes_first:
                b.publish(blocks, rows, (start // c.block, ceil_div(count, c.block)))

    def _output(self, group: int) -> None:
        """The output projection of the attention."""
        rows = self.groups[group]
        self._project(
            rows, self.mixed_blocks, self.wo, self.in_residual, self.sum_table, self.sum_blocks
        )
        if self.schedule == "interleaved":
            self._normalize_sum(rows)

    def _up_columns(self) -> list[tuple[int, int]]:
        """The hidden features of a tile, in pieces that an accumulator bank takes."""
        if not self.centred:
            return [(start, count) for start, count, _, _ in self.gates]
        each = ceil_div(self.layer.hidden, self.config.tiles)
        return list(pieces(each, self.config.acc_width))

    def _up(self, rows: Rows, number: int) -> None:
        """A piece of the hidden features; statistics of the rows with the first one."""
        b, c = self.b, self.config
        start, count = self._up_columns()[number]
        slot, tapped = self._tapped() if self.scaled and number == 0 else (0, {})
        bank = self._bank()
        x = (self.sum_normal if self.normalizes_first else self.sum_blocks).full
        fields = self._row_scale(self.sum_scales, rows)
        if self.centred:
            b.product(x, rows, self.w_up, (start, count), bank, **tapped)
            fields |= b.add_vector(self.b_up, start // c.lanes)
            fields |= {"function": Function.GELU}
        else:
            _, _, first, padded = self.gates[number]
            b.product(x, rows, self.w_gated, (first, padded + count), bank, **tapped)
            fields |= {"function": Function.SILU, "pair": Pair.GATE}
            fields |= {"gate_offset": padded // c.lanes}
        if tapped:
            self._reduce(rows, slot, self.sum_scales)
        b.vector(
            rows[1],
            count,
            Source.ACC,
            bank=bank,
            **fields,
            **b.to_blocks(self.hidden_blocks.local, rows[0], start // c.block),
        )
        b.publish(self.hidden_blocks, rows, (start // c.block, ceil_div(count, c.block)))

    def _down(self, rows: Rows) -> None:
        """The last projection."""
        self._project(
            rows,
            self.hidden_blocks,
            self.w_down,
            self.sum_residual,
            self.out_table,
            self.out_blocks,
        )

    # Results

    def _name_outputs(self) -> None:
        """How to put the results together, with what was folded into other weights undone."""
        b, layer, outputs = self.b, self.layer, self.b.outputs
        tokens, to_log2 = self.tokens, np.log2(np.e) / np.sqrt(self.head_dim)

        def heads(matrix: Matrix, count: int, per_tile: int, scale: float) -> Assemble:
            spread = self._heads(count, per_tile, self.head_blocks * self.config.block, 1)
            return lambda m: spread.gather(b.read_blocks(m, matrix)) / scale

        def values(m: Memories) -> Floats:
            spread = self._heads(layer.kv_heads, self.kv_heads, self.head_dim, 1)
            transposed = b.read_blocks(m, self.v)[:, :, :tokens].transpose(0, 2, 1)
            return spread.gather(transposed) + self.value_bias

        def shared(activation: Shared, spread: Spread) -> Assemble:
            return lambda m: spread.gather(
                b.read_blocks(m, activation.full)[0]
                .reshape(tokens, self.config.tiles, -1)
                .transpose(1, 0, 2)
            )

        def table(source: Table) -> Assemble:
            return lambda m: self.model.gather(b.read_table(m, source, tokens))

        mixed = shared(self.mixed_blocks, self.mixed)
        bias = np.repeat(self.value_bias.reshape(-1, self.head_dim), self.sharing, axis=0).ravel()
        outputs["q"] = heads(self.q, layer.heads, self.heads, to_log2)
        outputs["k"] = heads(self.k, layer.kv_heads, self.kv_heads, 1.0)
        outputs["v"] = values
        outputs["attention"] = lambda m: mixed(m) + bias
        if self.keep:
            outputs["residual"] = table(self.sum_table)
        outputs["hidden"] = shared(self.hidden_blocks, self.hidden)
        outputs["output"] = table(self.out_table)

    def _macs(self) -> int:
        """Multiplications that the results need; masked scores are not counted."""
        layer, tokens = self.layer, self.tokens
        wide, narrow = layer.heads * self.head_dim, layer.kv_heads * self.head_dim
        matrices = 2 if self.centred else 3
        weights = layer.dim * (2 * wide + 2 * narrow + matrices * layer.hidden)
        pairs = tokens * self.length if self.post_norm else tokens * (tokens + 1) // 2
        return tokens * weights + 2 * wide * pairs
