# SPDX-License-Identifier: Apache-2.0
"""Single operations as jobs, for benchmarks: a product, a normalized product, attention.

Their operands come from a seed; what they should compute, in float64 from the operands before
quantization, is in the job's ``info["reference"]``.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from afternorm.compiler.attention import Attention, Plan
from afternorm.compiler.buffers import (
    Buffer,
    Floats,
    ceil_div,
    grouped,
    pieces,
    round_up,
    slices,
)
from afternorm.compiler.builder import Banks, Builder
from afternorm.compiler.layer import Rows, row_groups
from afternorm.compiler.layer_weights import Schedule
from afternorm.config import Config
from afternorm.cycles import predict
from afternorm.errors import CapacityError
from afternorm.isa import Operand, Scale, Source
from afternorm.job import Job
from golden.reference import attention, layer_norm, rms_norm

_EPS = 1e-5


def compile_gemm(config: Config, M: int, N: int, K: int, *, seed: int = 0) -> Job:
    """``C = A Bᵀ`` with A ``[M, K]`` and B ``[N, K]``; the tiles split N; C becomes MX blocks.

    Raises
    ------
    CapacityError
        If it does not fit the accelerator.
    """
    c, b = config, Builder(config)
    rng = np.random.default_rng([seed, M, N, K])
    left, right = rng.normal(size=(M, K)), rng.normal(size=(N, K))
    columns = slices(N, c.tiles, c.block)
    padded = round_up(K, c.block)
    a = b.streamed(M, padded // c.block)
    b.load_blocks(a, _pad(left, padded))
    weights = b.weights(columns.tiles(_pad(right, padded), 0))
    result = b.streamed(M, columns.width // c.block)
    banks = Banks(range(c.acc_banks))
    for rows in pieces(M, c.rows_max):
        for cols in pieces(ceil_div(N, c.tiles), c.acc_width):
            bank = banks.take()
            b.product(a, rows, weights, cols, bank)
            fields = b.to_blocks(result, rows[0], cols[0] // c.block)
            b.vector(rows[1], cols[1], Source.ACC, bank=bank, **fields)
    b.outputs["output"] = lambda m: columns.gather(b.read_blocks(m, result))
    return b.job(M * N * K, reference={"output": left @ right.T})


def compile_norm_linear(
    config: Config,
    kind: Literal["rms", "layer"],
    K: int,
    N: int,
    M: int,
    *,
    schedule: Schedule = "deferred",
    seed: int | None = 0,
) -> Job:
    """A linear layer ``[N, K]`` of M normalized rows; the tiles split N, and K's statistics.

    Without a seed, rows and weights are zeros that take no memory, where only the program matters.

    Raises
    ------
    CapacityError
        If it does not fit the accelerator.
    """
    return _NormLinear(config, kind, K, N, M, schedule, seed).compile()


class _NormLinear:
    """Compiles a normalization and the linear layer after it."""

    def __init__(
        self,
        config: Config,
        kind: str,
        K: int,
        N: int,
        M: int,
        schedule: Schedule,
        seed: int | None,
    ) -> None:
        self.config, self.schedule = config, schedule
        self.K, self.N, self.M = K, N, M
        self.b = b = Builder(config)
        self.centred = kind == "layer"
        x, folded, bias = self._operands(seed)
        c = config
        self.features = slices(K, c.tiles, c.block)
        self.columns = slices(N, c.tiles, c.block)
        self.x = b.shared(M, self.features.width // c.block)
        self.x_normal = self.x
        if schedule in ("serial", "interleaved"):
            self.x_normal = b.shared(M, self.features.width // c.block)
            self.x_table = b.table(M, self.features.width // c.lanes)
            b.load_blocks(self.x.local, self.features.tiles(x, 1))
            b.load_table(self.x_table, self.features.tiles(x, 1))
        else:
            b.load_blocks(self.x.full, self.features.flat(x, 1))
        self.weights = b.weights(self.columns.tiles(self.features.flat(folded, 1), 0))
        if self.centred:
            self.bias = b.vectors(self.columns.tiles(bias, 0))
        self.result = b.streamed(M, self.columns.width // c.block)
        self.scales = b.scale_rows(M)
        self.groups = row_groups(c, M)
        rows = min(M, c.rows_max)
        slots = max(1, min(4, c.stat_depth // rows))
        self.stats = Banks([b.stat_rows(rows) for _ in range(slots)])

    def _operands(self, seed: int | None) -> tuple[Floats, Floats, Floats]:
        """Rows, weights as they are multiplied, and bias; the reference in float64."""
        K, N, M, centred = self.K, self.N, self.M, self.centred
        if seed is None:
            self.reference = np.broadcast_to(0.0, (M, N))
            return (
                np.broadcast_to(0.0, (M, K)),
                np.broadcast_to(0.0, (N, K)),
                np.broadcast_to(0.0, N),
            )
        rng = np.random.default_rng([seed, K, N, M, centred])
        x = rng.normal(size=(M, K)) * np.exp2(rng.uniform(-2.0, 2.0, (M, 1)))
        gamma, beta = rng.lognormal(0.0, 0.3, K), rng.normal(0.0, 0.1, K)
        weights, bias = rng.normal(0.0, K**-0.5, (N, K)), rng.normal(0.0, 0.1, N)
        folded = weights * gamma
        if centred:
            self.reference = layer_norm(x, gamma, beta, _EPS) @ weights.T + bias
            if self.schedule in ("deferred", "none"):
                folded = folded - folded.mean(axis=1, keepdims=True)
        else:
            self.reference = rms_norm(x, gamma, _EPS) @ weights.T
        return x, folded, bias + weights @ beta

    def compile(self) -> Job:
        """Emit the program."""
        b, c = self.b, self.config
        banks = Banks(range(c.acc_banks))
        serial = self.schedule == "serial"
        normalized = iter(list(pieces(self.M, c.rows_max)) if serial else self.groups)
        if serial:
            for rows in normalized:
                self._normalize(rows)
        elif self.schedule == "interleaved":
            self._normalize(next(normalized))
        for rows in self.groups:
            if self.schedule == "interleaved" and (following := next(normalized, None)):
                self._normalize(following)
            for cols in pieces(ceil_div(self.N, c.tiles), c.acc_width):
                self._product(rows, cols, banks.take())
        b.outputs["output"] = lambda m: self.columns.gather(b.read_blocks(m, self.result))
        macs = self.M * self.N * self.K
        return b.job(macs, schedule=self.schedule, reference={"output": self.reference})

    def _reduce(self, rows: Rows, stat: int) -> None:
        mode = Scale.LAYER if self.centred else Scale.RMS
        scale = self.scales + rows[0]
        self.b.reduce(mode, rows[1], stat, scale, tree=True, d=self.K, eps=_EPS)

    def _normalize(self, rows: Rows) -> None:
        b, local, stat = self.b, self.x.local, self.stats.take()
        b.scan(local, rows, stat, stat_first=1, stat_squares=1)
        self._reduce(rows, stat)
        b.vector(
            rows[1],
            ceil_div(self.K, self.config.tiles),
            Source.VECTOR,
            x_base=self.x_table.at(rows[0]),
            x_row=self.x_table.row,
            a=Operand.ROW_SCALE,
            b=Operand.ROW_SCALE if self.centred else Operand.NONE,
            scale_base=self.scales + rows[0],
            **b.to_blocks(self.x_normal.local, rows[0]),
        )
        b.publish(self.x_normal, rows)

    def _product(self, rows: Rows, cols: Rows, bank: int) -> None:
        b = self.b
        fields: dict[str, int] = {}
        tapped: dict[str, int] = {}
        deferred = self.schedule == "deferred"
        if deferred and cols[0] == 0:
            stat = self.stats.take()
            owned = self.x.local.blocks
            tapped = b.tap(self.weights, cols, self.x.full, rows, stat, owned=owned)
        b.product(self.x_normal.full, rows, self.weights, cols, bank, **tapped)
        if tapped:
            self._reduce(rows, stat)
        if deferred:
            fields |= {"a": Operand.ROW_SCALE, "scale_base": self.scales + rows[0]}
        if self.centred:
            fields |= b.add_vector(self.bias, cols[0] // self.config.lanes)
        fields |= b.to_blocks(self.result, rows[0], cols[0] // self.config.block)
        b.vector(rows[1], cols[1], Source.ACC, bank=bank, **fields)


def compile_attention(
    config: Config,
    S: int,
    head_dim: int,
    heads: int,
    causal: bool,
    *,
    schedule: Schedule = "deferred",
    split_keys: bool = False,
    spread: float = 1.0,
    seed: int = 0,
) -> Job:
    """Attention of S rows, from q, k and vᵀ in the scratchpad to MX blocks.

    The tiles split the heads; with `split_keys` every tile has all heads and a slice of the keys,
    and partial sums meet in the reduction tree.  `spread` is the standard deviation of the scores.

    Raises
    ------
    CapacityError
        If it does not fit the accelerator.
    """
    c, b = config, Builder(config)
    rng = np.random.default_rng([seed, S, head_dim, heads, causal])
    q, k, v = rng.normal(size=(3, S, heads * head_dim))
    q *= spread
    reference = attention(q, k, v, heads, heads, causal, None)

    per_tile = heads if split_keys else ceil_div(heads, c.tiles)
    blocks = ceil_div(head_dim, c.block)
    stride = blocks * c.block
    step = max(c.block, c.columns)
    keys = round_up(ceil_div(S, c.tiles), step) if split_keys else S
    spreads = 1 if split_keys else c.tiles
    apart = grouped(heads, head_dim, per_tile, spreads, stride, per_tile * stride)
    close = grouped(heads, head_dim, per_tile, spreads, head_dim, per_tile * head_dim)

    def by_tile(x: Floats) -> Floats:
        """Rows in slices over the tiles, if the keys are split."""
        if not split_keys:
            return x
        return _pad(x[0].T, keys * c.tiles).T.reshape(c.tiles, keys, -1)

    queries = b.streamed(S, per_tile * blocks)
    b.load_blocks(queries, apart.tiles(q * np.log2(np.e) / np.sqrt(head_dim), 1))
    # Farthest from the probabilities, which stream against them: not in the same bank.
    transposed = by_tile(close.tiles(v, 1)).transpose(0, 2, 1)
    values = b.stationary(per_tile * head_dim, ceil_div(keys, c.block))
    b.load_blocks(values, _pad(transposed, round_up(keys, c.block)))
    key_blocks = b.stationary(keys, per_tile * blocks)
    b.load_blocks(key_blocks, by_tile(apart.tiles(k, 1)))
    result = b.streamed(S, per_tile * blocks)
    b.mark()
    groupings = [row_groups(c, S, least) for least in (1, 2, 3)]

    def finish(rows: Rows, some: Rows, part: Rows, bank: int, scale: dict[str, int]) -> None:
        assert some[1] == 1, "heads share no keys here"
        fields = b.to_blocks(result, rows[0], some[0] * blocks + part[0] // c.block)
        b.vector(rows[1], part[1], Source.ACC, bank=bank, **scale, **fields)

    core = Attention(
        b,
        q=queries,
        k=key_blocks,
        v=values,
        heads=per_tile,
        sharing=1,
        head_dim=head_dim,
        groups=groupings[0],
        length=S,
        keys=keys,
        split=split_keys,
        causal=causal,
        softmax="serial" if schedule == "interleaved" else schedule,
        finish=finish,
    )
    core.follow(_fastest(b, core, groupings, b.buffer(result)))
    core.run({})
    b.outputs["output"] = lambda m: apart.gather(b.read_blocks(m, result)[:spreads])
    pairs = S * (S + 1) // 2 if causal else S * S
    return b.job(2 * heads * head_dim * pairs, schedule=schedule, reference={"output": reference})


def _fastest(b: Builder, core: Attention, groupings: Sequence[list[Rows]], result: Buffer) -> Plan:
    """The plan whose program takes the fewest cycles; the builder forgets what came after `mark`.

    The first one that keeps the array busy all the time is taken, even if its last drain is longer.
    Where the array waits for operands in one bank, the `result`, which no product reads, may lie
    between what streams and what is loaded, and not beneath the probabilities.

    Raises
    ------
    CapacityError
        If none fits.
    """
    best: tuple[int, int, Plan, bool] | None = None
    short: CapacityError | None = None
    for plan in core.plans(groupings):
        if best and plan.least >= best[1]:
            break
        for between in (False, True):
            b.rewind()
            result.high = between
            core.follow(plan)
            core.run({})
            try:
                program, _ = b.program()
            except CapacityError as one:
                short = short or one
                break
            time = predict(b.config, program)
            if best is None or time.cycles < best[0] or not time.idle_slots:
                best = time.cycles, time.rows + time.idle_slots, plan, between
            if not time.lost["matmul"]:
                break
    if best is None:
        assert short is not None
        raise short
    b.rewind()
    _, _, plan, result.high = best
    return plan


def _pad(x: Floats, width: int) -> Floats:
    """Zeros behind the last axis."""
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, width - x.shape[-1])])
