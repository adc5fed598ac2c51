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

A BERT layer takes and returns the un-normalized sums before its LayerNorms (see
`golden.reference.bert_layer`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from afternorm.checkpoints import Floats, Layer
from afternorm.compiler.attention import Attention, Softmax
from afternorm.compiler.buffers import (
    Matrix,
    Shared,
    Spread,
    Table,
    Weights,
    ceil_div,
    pieces,
    round_up,
)
from afternorm.compiler.builder import Banks, Builder
from afternorm.compiler.layer_weights import (
    SCHEDULES,
    LayerWeights,
    Schedule,
    normalizes_first,
)
from afternorm.config import Config
from afternorm.errors import CapacityError
from afternorm.isa import Function, Operand, Pair, Scale, Source, Stats
from afternorm.job import Assemble, Job, Memories

Rows = tuple[int, int]
"""First row and number of rows."""
_AHEAD = 6
"""Units before the scores of a sequence whose caches stay, from which on its values are made."""
_AHEAD_FETCHED = 2
"""The same where caches are fetched: they take room."""
_SLOTS = 4
"""Sequences whose tails' scales have places of their own, so that their values do not wait."""


def row_groups(config: Config, tokens: int, least: int = 2) -> list[Rows]:
    """Rows in groups of (first, count), of whole blocks but for the last one.

    There are `least` groups at least, where each fills the array's pipeline, and they are as even
    as blocks allow.
    """
    unit = min(config.block, config.rows_max)
    most = config.rows_max // unit * unit
    count = max(1, ceil_div(tokens, most), min(least, tokens // max(config.block, config.columns)))
    cuts = []
    for add in (count * unit - 1, 0):  # up or down: the last group has the remainder
        ends = [(tokens * n + add) // (count * unit) * unit for n in range(1, count)]
        cuts.append([(start, end - start) for start, end in pairwise([0, *ends, tokens])])
    fit = [groups for groups in cuts if all(rows <= config.rows_max for _, rows in groups)]
    return max(fit, key=lambda groups: min(rows for _, rows in groups))


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
        folded.  Values of masked keys are not made.

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
    length = len(x) if length is None else length
    try:
        return _compile_layer(config, layer, x, schedule, length, keep=True)
    except CapacityError:
        # The residual in place saves two thirds of the vector memory that it takes.
        return _compile_layer(config, layer, x, schedule, length, keep=False)


def _compile_layer(
    config: Config, layer: Layer, x: Floats, schedule: Schedule, length: int, *, keep: bool
) -> Job:
    b, tokens = Builder(config), len(x)
    w = LayerWeights(b, layer, schedule)
    rows = b.fmt.round(x)
    slices_of_x = w.model.tiles(rows, 1)
    in_blocks = b.shared(tokens, w.model_blocks)
    in_table = b.table(tokens, w.model_words)
    b.load_table(in_table, slices_of_x)
    if normalizes_first(schedule):
        b.load_blocks(in_blocks.local, slices_of_x)
    else:
        b.load_blocks(in_blocks.full, w.model.flat(rows, 1))
    rotation = None
    if not w.centred:
        cos, sin = (b.table(tokens, w.head_lanes // config.lanes) for _ in range(2))
        for table, values in zip((cos, sin), w.rotation(tokens), strict=True):
            b.load_table(table, values)
        rotation = cos, sin
    out_blocks = b.shared(tokens, w.model_blocks)
    out_table = b.table(tokens, w.model_words) if keep else in_table
    multiplied = b.shared(tokens, w.model_blocks) if normalizes_first(schedule) else in_blocks
    k = b.stationary(tokens, w.kv_heads * w.head_blocks)
    v = b.stationary(w.kv_heads * w.head_dim, ceil_div(tokens, config.block))
    program = LayerProgram(
        b,
        w,
        schedule,
        Step(tokens=tokens, groups=row_groups(config, tokens), length=length),
        in_blocks=in_blocks,
        in_table=in_table,
        out_blocks=out_blocks,
        out_table=out_table,
        x=multiplied,
        new_keys=k,
        caches=[Caches(k, v, multiplied.full)],
        rotation=rotation,
        keep=keep,
    )
    b.place()  # what does not fit is not worth its instructions
    program.emit()
    _Results(program).name()
    return b.job(program.macs(), schedule=schedule, arch=layer.arch, tokens=tokens, kept=keep)


@dataclass(frozen=True, kw_only=True)
class Step:
    """Which tokens a program computes.

    Attributes
    ----------
    tokens : how many.
    groups : their rows in groups of (first, count).
    length : keys from here on are masked.
    position : of the first token in its sequence.
    tail : tokens before it that lie in the same block of transposed values, whose inputs are
        still there.  Only a step of a single token a sequence may have any.
    batched : the tokens are of as many sequences, all at the same position.
    """

    tokens: int
    groups: list[Rows]
    length: int
    position: int = 0
    tail: int = 0
    batched: bool = False


def _nothing() -> None:
    """Nothing has to be moved."""


@dataclass(frozen=True)
class Caches:
    """What a layer has of a sequence.

    Attributes
    ----------
    k, v : keys ``[token, head x feature]`` and transposed values ``[head x feature, token]``, of
        all tokens since position 0.
    x : what the first products multiply, of all tiles: the rows of the tail, then the step's.
    fetch, enter, keep : emit what brings the earlier tokens' here, what brings the step's keys and
        inputs here, and what takes the step's to where they stay; by default, all are there.
    """

    k: Matrix
    v: Matrix
    x: Matrix
    fetch: Callable[[], None] = _nothing
    enter: Callable[[], None] = _nothing
    keep: Callable[[], None] = _nothing


class LayerProgram:
    """Emits one layer of one step.

    Parameters
    ----------
    builder, weights : the program, and the layer's constants in it.
    schedule, step : what is computed, and in which order.
    in_blocks, in_table : the layer's input: its blocks, and its floats in slices over the tiles.
    out_blocks, out_table : the same of its output.
    out_rows : (first, count) of the output's rows whose blocks all tiles get; by default all.
    x : what the first products multiply: `in_blocks`, or room for the normalized rows.
    new_keys : where the step's keys go, a row a token.
    caches : by sequence.
    rotation : cosines and sines of the rotary embedding of the step's positions (LLaMA).
    keep : intermediate sums get places of their own.
    """

    def __init__(
        self,
        builder: Builder,
        weights: LayerWeights,
        schedule: Schedule,
        step: Step,
        *,
        in_blocks: Shared,
        in_table: Table,
        out_blocks: Shared,
        out_table: Table,
        x: Shared,
        new_keys: Matrix,
        caches: Sequence[Caches],
        rotation: tuple[Table, Table] | None,
        out_rows: Rows | None = None,
        keep: bool = True,
    ) -> None:
        self.b, self.w, self.schedule, self.step = builder, weights, schedule, step
        self.config = c = builder.config
        self.layer = weights.layer
        self.groups, self.tokens = step.groups, step.tokens
        self.normalizes_first = normalizes_first(schedule)
        self.scaled = schedule == "deferred"
        self.mode = Scale.LAYER if weights.centred else Scale.RMS
        self.in_blocks, self.in_table, self.x = in_blocks, in_table, x
        self.out_blocks, self.out_table = out_blocks, out_table
        self.out_rows = (0, step.tokens) if out_rows is None else out_rows
        self.new_keys, self.caches, self.rotation = new_keys, caches, rotation
        self.keep = keep
        self._banks = Banks(range(c.acc_banks))
        # Where a bank takes several heads, that is fewer instructions.
        self._at_once = (
            step.tokens == 1
            and weights.head_dim == weights.head_lanes
            and 2 * weights.head_dim <= c.acc_width
        )

        b, w, tokens = self.b, self.w, self.tokens
        self.sum_blocks = b.shared(tokens, w.model_blocks)
        self.sum_normal = self.sum_blocks
        if self.normalizes_first:
            # What is normalized is gathered; the sums themselves only feed the statistics.
            self.sum_normal = b.shared(tokens, w.model_blocks)
        self.q = b.streamed(tokens, w.heads * w.head_blocks)
        self.mixed_blocks = b.shared(tokens, w.mixed.width // c.block)
        self.hidden_blocks = b.shared(tokens, w.hidden.width // c.block)
        self.sum_table = b.table(tokens, w.model_words) if keep else in_table
        # The sum, normalized (BERT) and with the next projection's bias: what it is added to.
        prepared = w.centred and keep
        self.in_residual = b.table(tokens, w.model_words) if prepared else in_table
        self.sum_residual = b.table(tokens, w.model_words) if prepared else self.sum_table
        if w.packed:
            self.mixed_table = b.table(tokens, w.heads * w.head_lanes // c.lanes)
        # The scales of the tail, too, which only the values need: of one sequence, the new token's
        # come with them.
        alone = 0 if step.batched else step.tail
        self.in_scales, self.sum_scales = b.scale_rows(alone + tokens), b.scale_rows(tokens)
        self._in_scales = self.in_scales + alone
        slots = min(_SLOTS, len(caches))
        self._value_scales = (
            [b.scale_rows(step.tail + 1) for _ in range(slots)]
            if step.batched
            else [self.in_scales]
        )
        rows = max(step.tail + 1, alone + max(count for _, count in self._scanned()))
        slots = 2 if step.batched else len(self._scanned()[:2])
        self._stat_slots = [b.stat_rows(rows) for _ in range(slots)]
        self._stat_next = 0
        self.attention = Attention(
            b,
            q=self.q,
            k=caches[0].k,
            v=caches[0].v,
            batch=[(one.k, one.v) for one in caches] if step.batched else (),
            heads=w.heads,
            sharing=w.sharing,
            head_dim=w.head_dim,
            groups=[(row, 1) for row in range(tokens)] if step.batched else self.groups,
            position=step.position,
            length=step.length,
            keys=step.length,
            split=False,
            causal=not w.post_norm,
            softmax=self._softmax(),
            finish=self._finish_head,
        )

    def _softmax(self) -> Softmax:
        if self.normalizes_first:
            return "serial"
        return "deferred" if self.scaled else "none"

    # Program

    def emit(self) -> None:
        """Emit the layer's instructions."""
        last = len(self.groups) - 1
        if not self.step.batched:
            self.caches[0].fetch()
        for number, rows in enumerate(self._scanned()):
            if self.schedule == "serial" or (self.schedule == "interleaved" and number == 0):
                self._normalize_in(rows)
        if self.step.batched:
            self._attention_by_sequence()
        else:
            self._attention()
        if self.schedule == "serial":
            self._output(last)
            for rows in self._scanned():
                self._normalize_sum(rows)
        columns = self.w.up_columns
        for group, rows in enumerate(self.groups):
            shares = self._shares(rows, max(1, len(columns) - 1))
            for number in range(len(columns)):
                # The last group's sum comes late: it is hidden behind the first group's products.
                due = 0 if last == 0 else len(columns) - 1
                if self.schedule != "serial" and group == 0 and number == due:
                    self._output(last)
                self._up(rows, number)
                # Its scales come with the first product.
                for share in shares[number - 1 : number] if len(columns) > 1 else shares:
                    self._prepare(1, share)
        for rows in self.groups:
            self._down(rows)
        if not self.step.batched:
            self.caches[0].keep()

    def _attention_by_sequence(self) -> None:
        """The attention of several sequences' tokens, whose queries and keys are made at once.

        The values of a sequence are made some way ahead of its scores.  What has to be fetched for
        it takes room: it comes while the one before is attended to.
        """
        attention, w = self.attention, self.w
        for group, rows in enumerate(self.groups):
            for head in range(w.heads):
                key = head // w.sharing if head % w.sharing == 0 else None
                self._project_heads(group, head, key)
            self._prepare(0, rows)
        starts = [n for n, one in enumerate(attention.units) if one.begins and one.head == 0]
        ahead = _AHEAD if self.caches[0].fetch is _nothing else _AHEAD_FETCHED
        hooks: dict[int, list[Callable[[], None]]] = {}
        for number, start in enumerate(starts):
            due = attention.before(start - ahead)
            for at, hook in (
                (min(due, starts[max(number - 1, 0)]), self.caches[number].fetch),
                (due, partial(self._values_of, number)),
            ):
                if at < 0:
                    hook()
                else:
                    hooks.setdefault(at, []).append(hook)
        everything, self._banks = self._banks, attention.other_banks
        attention.run(hooks)
        self._banks = everything
        for group in range(len(self.groups) - 1):
            self._output(group)

    def _values_of(self, number: int) -> None:
        """A sequence's keys and values, with its new token's."""
        cache = self.caches[number]
        cache.enter()
        self._values((0, self.step.tail + 1), number)
        cache.keep()

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
                hooks.setdefault(unit, []).append(hook)

        groups: list[list[int]] = [[] for _ in self.groups]
        for number, unit in enumerate(units):
            if unit.begins:
                groups[unit.group] += [number] * attention.stacked
        for group, heads in enumerate(groups):
            for head, number in enumerate(heads):
                # Two units before the scores, so that they have left the accumulators by then.
                due = -1 if self._at_once else attention.before(number - 1)
                begins = head % self.w.sharing == 0
                if begins and not attention.causal and group == 0 and not self._at_once:
                    # Keys of all rows are needed at once.
                    for part, _ in enumerate(self.groups):
                        at(
                            attention.before(number - 2),
                            partial(self._project_heads, part, None, head // self.w.sharing),
                        )
                key = head // self.w.sharing if begins and attention.causal else None
                # What is masked must not share exponents with the last keys.
                rows = self.groups[group] if attention.causal else (0, self.step.length)
                if head == 0 and self.step.tail:
                    at(due, partial(self._values, (0, self.step.tail + 1)))
                if not self._at_once:
                    at(due, partial(self._project_heads, group, head, key))
                elif head == 0:
                    self._project_all_heads()
                if head == 0 and not self.step.tail and (attention.causal or group == 0):
                    at(due, partial(self._values, rows))
        for group, heads in enumerate(groups):
            # A few rows a head: long passes would keep accumulators from being drained.
            for head, rows in zip(
                heads, self._shares(self.groups[group], len(heads)), strict=False
            ):
                at(head, partial(self._prepare, 0, rows))
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

    def _tap(
        self, weights: Weights, piece: Rows, x: Matrix, rows: Rows, operand: Stats = Stats.A
    ) -> tuple[int, dict[str, int]]:
        """A statistics slot, and the fields of the product of `x` that fills it."""
        slot, owned = self._stat_slot(), self.w.model_blocks
        return slot, self.b.tap(weights, piece, x, rows, slot, owned=owned, operand=operand)

    def _row_scale(self, scales: int, rows: Rows) -> dict[str, int]:
        """Fields of a pass over a product of what is not normalized yet."""
        if not self.scaled:
            return {}
        return {"a": Operand.ROW_SCALE, "scale_base": scales + rows[0]}

    def _normalize_in(self, rows: Rows) -> None:
        self._normalize(
            rows, self.in_blocks, self._in_scales, self.in_table, self.x, self.in_residual
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
        b.scan(blocks.local, rows, slot, stat_first=1, stat_squares=1)
        self._reduce(rows, slot, scales)
        fields = self._affine(scales, rows) | b.to_blocks(normal.local, rows[0])
        if self.w.post_norm:
            fields |= b.to_table(residual, rows[0])
        self._table_pass(rows, table, **fields)
        b.publish(normal, rows)

    def _affine(self, scales: int, rows: Rows) -> dict[str, int]:
        """Fields of a pass that normalizes."""
        fields = {"a": Operand.ROW_SCALE, "scale_base": scales + rows[0]}
        return fields | ({"b": Operand.ROW_SCALE} if self.w.centred else {})

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

    @staticmethod
    def _shares(rows: Rows, count: int) -> list[Rows]:
        """Rows in `count` shares at most, all but the last of the same size."""
        size = ceil_div(rows[1], count)
        return [(rows[0] + first, length) for first, length in pieces(rows[1], size)]

    def _prepare(self, which: int, rows: Rows) -> None:
        """What a projection is added to: the sum or (BERT) what is normalized; plus the bias."""
        if not self.w.centred:
            return
        b = self.b
        source, target, scales = (
            (self.in_table, self.in_residual, self._in_scales),
            (self.sum_table, self.sum_residual, self.sum_scales),
        )[which]
        fields = b.add_vector(self.w.residual_bias[which])
        if self.w.post_norm and self.schedule != "none":
            if not self.normalizes_first:
                self._table_pass(
                    rows, source, **self._affine(scales, rows), **b.to_table(target, rows[0])
                )
            gamma = self.w.residual_gamma[which]
            fields |= {"a": Operand.VECTOR, "p_base": gamma.at(0), "p_row": 0}
            source = target
        self._table_pass(rows, source, **fields, **b.to_table(target, rows[0]))

    # Products

    def _project_heads(self, group: int, query: int | None, key: int | None) -> None:
        """A head's queries, keys, or both; statistics of the rows with the first keys."""
        b, c, w, rows = self.b, self.config, self.w, self.groups[group]
        if self.schedule == "interleaved" and key == 0 and group + 1 < len(self.groups):
            self._normalize_in(self.groups[group + 1])  # one group ahead of its product
        made = []
        if key is not None:
            made.append((w.wk, key, self.new_keys, w.bk if w.centred else None))
        if query is not None:
            made.append((w.wq, query, self.q, w.bq if w.centred else None))
        parts = [(*one, part) for one in made for part in w.head_parts]
        # Both in one bank, if it has room for whole blocks of both.
        apart = round_up(w.head_dim, c.columns)
        together = apart + w.head_blocks * c.block <= c.acc_width
        for some in [parts] if together else [[part] for part in parts]:
            bank = self._bank()
            for place, (weights, head, _, _, part) in enumerate(some):
                columns = w.columns(head, part)
                watched = self._keys_watched and weights is w.wk and columns[0] == 0
                slot, tapped = 0, dict[str, int]()
                if watched:
                    slot, tapped = self._tap(weights, columns, self.x.full, rows)
                first = place * apart // c.columns
                b.product(self.x.full, rows, weights, columns, bank, acc_tile=first, **tapped)
                if watched:
                    self._reduce(rows, slot, self._in_scales)
            for place, (_, head, to, bias, part) in enumerate(some):
                b.vector(
                    rows[1],
                    part[1],
                    Source.ACC,
                    bank=bank,
                    acc_tile=place * apart // c.columns,
                    **self._row_scale(self._in_scales, rows),
                    **self._position(rows, head, part, bias),
                    **b.to_blocks(to, rows[0], head * w.head_blocks + part[0] // c.block),
                )

    def _project_all_heads(self) -> None:
        """A single token's queries and keys: many heads a product, then the heads as rows."""
        b, c, w, token = self.b, self.config, self.w, (0, 1)
        lanes = w.head_lanes // c.lanes
        for weights, heads, to, bias in (
            (w.wk, w.kv_heads, self.new_keys, w.bk if w.centred else None),
            (w.wq, w.heads, self.q, w.bq if w.centred else None),
        ):
            table = b.table(1, heads * lanes)
            for piece, length in weights.columns:
                for first, count in pieces(length, c.acc_width):
                    columns, word, bank = (
                        (piece + first, count),
                        (piece + first) // c.lanes,
                        self._bank(),
                    )
                    watched = self._keys_watched and weights is w.wk and columns[0] == 0
                    slot, tapped = 0, dict[str, int]()
                    if watched:
                        slot, tapped = self._tap(weights, columns, self.x.full, token)
                    b.product(self.x.full, token, weights, columns, bank, **tapped)
                    if watched:
                        self._reduce(token, slot, self._in_scales)
                    fields = self._row_scale(self._in_scales, token)
                    if bias is not None:
                        fields |= b.add_vector(bias, word)
                    b.vector(
                        1, count, Source.ACC, bank=bank, **fields, **b.to_table(table, 0, word)
                    )
            fields = b.to_blocks(to, 0) | {"m_row": w.head_blocks * to.block_step}
            if self.rotation is not None:
                fields |= self._position(token, 0, (0, w.head_dim), None) | {"p_row": 0, "q_row": 0}
            b.vector(heads, w.head_dim, Source.VECTOR, x_base=table.at(0), x_row=lanes, **fields)

    def _position(self, rows: Rows, head: int, part: Rows, bias: Table | None) -> dict[str, int]:
        """Fields of a pass that rotates a part of a head, or adds its bias."""
        word = part[0] // self.config.lanes
        if bias is not None:
            return self.b.add_vector(bias, head * self.w.head_lanes // self.config.lanes + word)
        assert self.rotation is not None
        cos, sin = self.rotation
        row, step = (0, 0) if self.step.batched else (rows[0], 1)
        return {
            "pair": Pair.ROTATE,
            "p_base": cos.at(row, word),
            "p_row": step * cos.row,
            "q_base": sin.at(row, word),
            "q_row": step * sin.row,
        }

    def _bank(self) -> int:
        return self._banks.take()

    @property
    def _keys_watched(self) -> bool:
        """Whether the rows' statistics come with the first keys, and not with the values."""
        return self.scaled and (self.step.batched or not self.step.tail)

    def _values(self, rows: Rows, number: int = 0) -> None:
        """A sequence's values, transposed: weights stream, rows are stationary; scaled by column.

        With a tail, `rows` begin there: the newest block of the values is made again from the
        inputs of all its tokens, and the statistics of all come with it.  So they do where the
        step's other rows are of other sequences: column scales lie together.
        """
        b, c, tail = self.b, self.config, self.step.tail
        x, v = self.caches[number].x, self.caches[number].v
        scales = self._value_scales[number % len(self._value_scales)]
        block = (self.step.position - tail) // c.block
        for first, count in pieces(rows[1], c.acc_width):
            tokens = (rows[0] + first, count)
            for features in pieces(v.rows, c.rows_max):
                watched = self.scaled and features[0] == 0 and (tail > 0 or self.step.batched)
                slot, tapped = 0, dict[str, int]()
                if watched:
                    slot, tapped = self._tap(self.w.wv, features, x, tokens, Stats.B)
                bank = self._bank()
                b.product(self.w.wv, features, x, tokens, bank, **tapped)
                if watched:
                    self._reduce(tokens, slot, scales)
                scale = {}
                if self.scaled:
                    scale = {"a": Operand.COLUMN_SCALE, "scale_base": scales + tokens[0]}
                b.vector(
                    features[1],
                    count,
                    Source.ACC,
                    bank=bank,
                    **scale,
                    **b.to_blocks(v, features[0], block + tokens[0] // c.block),
                )

    def _finish_head(
        self, rows: Rows, heads: Rows, part: Rows, bank: int, scale: dict[str, int]
    ) -> None:
        """Drain heads' attention; after the last one, make blocks of all and gather them."""
        b, c, w = self.b, self.config, self.w
        head, count = heads
        drained = sum(rows)
        if w.packed:
            word = (head * w.head_lanes + part[0]) // c.lanes
            fields = b.to_table(self.mixed_table, rows[0], word)
            step = {"y_row": w.head_lanes // c.lanes}
        else:
            mixed, block = self.mixed_blocks.local, head * w.head_blocks + part[0] // c.block
            fields = b.to_blocks(mixed, rows[0], block)
            step = {"m_row": w.head_blocks * mixed.block_step}
        if count > 1:  # of a single token
            fields |= step
        b.vector(count * rows[1], part[1], Source.ACC, bank=bank, **scale, **fields)
        if head + count < w.heads or part != w.head_parts[-1]:
            return
        if self.step.batched:  # once for all of a group's sequences
            rows = next(some for some in self.groups if rows[0] < sum(some))
            if drained < sum(rows):
                return
        if self.w.packed:
            b.vector(
                rows[1],
                self.w.heads * self.w.head_lanes,
                Source.VECTOR,
                x_base=self.mixed_table.at(rows[0]),
                x_row=self.mixed_table.row,
                **b.to_blocks(self.mixed_blocks.local, rows[0]),
            )
        b.publish(self.mixed_blocks, rows)

    def _project(
        self,
        rows: Rows,
        a: Shared,
        weights: Weights,
        plus: Table,
        table: Table,
        blocks: Shared,
        wanted: Rows,
    ) -> None:
        """A projection back to the model's features, added to the residual.

        Of the rows, all tiles get the blocks of those that are `wanted`.
        """
        b, c = self.b, self.config
        first = max(rows[0], wanted[0])
        shown = first, min(sum(rows), sum(wanted)) - first
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
            if not self.normalizes_first and shown[1] > 0:
                b.publish(blocks, shown, (start // c.block, ceil_div(count, c.block)))

    def _output(self, group: int) -> None:
        """The output projection of the attention."""
        rows = self.groups[group]
        self._project(
            rows,
            self.mixed_blocks,
            self.w.wo,
            self.in_residual,
            self.sum_table,
            self.sum_blocks,
            rows,
        )
        if self.schedule == "interleaved":
            self._normalize_sum(rows)

    def _up(self, rows: Rows, number: int) -> None:
        """A piece of the hidden features; statistics of the rows with the first one."""
        b, c, w = self.b, self.config, self.w
        start, count = columns = w.up_columns[number]
        fields = self._row_scale(self.sum_scales, rows)
        if w.centred:
            fields |= b.add_vector(w.b_up, start // c.lanes) | {"function": Function.GELU}
        else:
            _, _, first, padded = w.gates[number]
            columns = (first, padded + count)
            fields |= {"function": Function.SILU, "pair": Pair.GATE}
            fields |= {"gate_offset": padded // c.lanes}
        x = (self.sum_normal if self.normalizes_first else self.sum_blocks).full
        watched = self.scaled and number == 0
        slot, tapped = self._tap(w.w_up, columns, x, rows) if watched else (0, {})
        bank = self._bank()
        b.product(x, rows, w.w_up, columns, bank, **tapped)
        if watched:
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
            self.w.w_down,
            self.sum_residual,
            self.out_table,
            self.out_blocks,
            self.out_rows,
        )

    def macs(self) -> int:
        """Multiplications that the results need; masked scores are not counted."""
        layer, step, tokens = self.layer, self.step, self.tokens
        wide, narrow = layer.heads * layer.head_dim, layer.kv_heads * layer.head_dim
        matrices = 2 if self.w.centred else 3
        weights = layer.dim * (2 * wide + 2 * narrow + matrices * layer.hidden)
        pairs = tokens * step.length
        if not self.w.post_norm and not step.batched:
            pairs = tokens * step.position + tokens * (tokens + 1) // 2
        return tokens * weights + 2 * wide * pairs


class _Results:
    """Puts a layer's results together, with what was folded into other weights undone."""

    def __init__(self, program: LayerProgram) -> None:
        self.program, self.b, self.w = program, program.b, program.w

    def name(self) -> None:
        """Name them as `golden.reference.Results` does."""
        p, w, layer, outputs = self.program, self.w, self.w.layer, self.b.outputs
        to_log2 = np.log2(np.e) / np.sqrt(w.head_dim)
        mixed = self._shared(p.mixed_blocks, w.mixed)
        bias = np.repeat(w.value_bias.reshape(-1, w.head_dim), w.sharing, axis=0).ravel()
        outputs["q"] = self._heads(p.q, layer.heads, w.heads, to_log2)
        outputs["k"] = self._heads(p.new_keys, layer.kv_heads, w.kv_heads, 1.0)
        outputs["v"] = self._values
        outputs["attention"] = lambda m: mixed(m) + bias
        if p.keep:
            outputs["residual"] = self._table(p.sum_table)
        outputs["hidden"] = self._shared(p.hidden_blocks, w.hidden)
        outputs["output"] = self._table(p.out_table)

    def _heads(self, matrix: Matrix, count: int, per_tile: int, scale: float) -> Assemble:
        width = self.w.head_blocks * self.program.config.block
        spread = self.w.spread(count, per_tile, width, 1)
        return lambda m: spread.gather(self.b.read_blocks(m, matrix)) / scale

    def _values(self, m: Memories) -> Floats:
        w = self.w
        spread = w.spread(w.layer.kv_heads, w.kv_heads, w.head_dim, 1)
        values = self.b.read_blocks(m, self.program.caches[0].v)[:, :, : self.program.tokens]
        return spread.gather(values.transpose(0, 2, 1)) + w.value_bias

    def _shared(self, activation: Shared, spread: Spread) -> Assemble:
        tokens, tiles = self.program.tokens, self.program.config.tiles
        return lambda m: spread.gather(
            self.b.read_blocks(m, activation.full)[0].reshape(tokens, tiles, -1).transpose(1, 0, 2)
        )

    def _table(self, source: Table) -> Assemble:
        tokens = self.program.tokens
        return lambda m: self.w.model.gather(self.b.read_table(m, source, tokens))
