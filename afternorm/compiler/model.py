# SPDX-License-Identifier: Apache-2.0
"""From a whole model to programs: prefill, decoding with a cache, and encoding.

DRAM holds, from address 0 on: the program (`DATA` bytes of room), the constants as the kernels
take them, rotary tables, the input, the output, and caches that have no room in the scratchpads.
A program begins with its input's floats in DRAM and ends with its output's floats there.

What stays in the tiles' memories from program to program is decided once, in this order: all
constants and all caches; the caches alone, while the weights stream; nothing.

A decoder's caches, by layer, each tile for its own heads:

* keys, ``[token, head x feature]``, a row of MX blocks a token;
* transposed values, ``[head x feature, token]``, MX blocks along the tokens;
* the layer's input (normalized, where rows are normalized first) of the newest tokens, all
  features in every tile, because the newest block of the transposed values, whose tokens share an
  exponent, is made again with every token until it is full.

Prefill makes the values of a whole block at once: prefill and decoding agree to rounding.
"""

from dataclasses import dataclass

import numpy as np

from afternorm.checkpoints.model import Model
from afternorm.compiler.accesses import Memory, dram_ranges, words
from afternorm.compiler.assembler import Assembler
from afternorm.compiler.buffers import (
    Floats,
    Home,
    Matrix,
    Shared,
    Table,
    ceil_div,
    hollow,
    pieces,
    round_up,
    scaled,
    slices,
)
from afternorm.compiler.builder import Banks, Builder
from afternorm.compiler.layer import LayerProgram, Rows, Step
from afternorm.compiler.layer_weights import (
    SCHEDULES,
    LayerWeights,
    Schedule,
    centre,
    normalizes_first,
)
from afternorm.compiler.planner import Plan, load, streamed_plan
from afternorm.config import Config
from afternorm.errors import CapacityError
from afternorm.isa import INSTRUCTION_BYTES, Instruction, Opcode, Operand, Scale, Source, Target
from afternorm.job import DATA
from afternorm.memory_map import EXPONENT_BYTES, float_slot, float_word_bytes
from golden.mx import quantize

ALIGNMENT = 64
"""Of everything in DRAM, in bytes: a beat of the widest port."""
_PIECES = 8
"""A piece of streamed weights takes this part of a scratchpad at most."""


@dataclass(frozen=True, eq=False)
class ModelProgram:
    """One program of a model.

    Attributes
    ----------
    instructions : the program; it lies at address 0.
    rows : of input that it takes.
    ideal, macs : array cycles of its padded products, and multiplications that it needs.
    moved : bytes of DRAM that its LOADs and STOREs move.
    used : words that it needs of each memory of a tile.
    """

    instructions: list[Instruction]
    rows: int
    ideal: int
    macs: int
    moved: int
    used: dict[Memory, int]

    @property
    def words(self) -> bytes:
        """What goes to DRAM."""
        return b"".join(i.pack().to_bytes(INSTRUCTION_BYTES, "little") for i in self.instructions)


@dataclass(frozen=True)
class Region:
    """A part of DRAM."""

    name: str
    address: int
    size: int


@dataclass
class _Cache:
    """A layer's caches in the builder's buffers."""

    k: Matrix
    v: Matrix
    x: Matrix


class ModelCompiler:
    """Compiles a model for an accelerator.

    Parameters
    ----------
    config : the accelerator.
    model : any of the families.
    schedule : one of `SCHEDULES`.
    tokens : positions that caches have room for; encoders: the most tokens of a text.
    chunk : tokens that prefill takes at once, rounded up to whole blocks.
    alike : all tiles do the whole work of one, on one copy of everything that DRAM sends to all at
        once.  So nothing is padded to a tile's blocks, which pays where a few rows wait for
        weights, and the model's width is not much more than a block a tile.

    Attributes
    ----------
    resident, cached : whether constants, and caches, stay in the tiles.
    regions : the map of DRAM.

    Raises
    ------
    CapacityError
        If the model does not fit the accelerator in any way.
    ValueError
        If the schedule is unknown, or `tokens` or `chunk` is less than 1.
    """

    def __init__(
        self,
        config: Config,
        model: Model,
        schedule: Schedule = "deferred",
        *,
        tokens: int,
        chunk: int = 1,
        alike: bool = False,
    ) -> None:
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, not {schedule!r}")
        if tokens < 1 or chunk < 1:
            raise ValueError(f"tokens={tokens} and chunk={chunk} must be 1 at least")
        if tokens > model.context:
            raise CapacityError(
                f"the context of {model.name} has room for {model.context} tokens, not {tokens}"
            )
        self.config, self.model, self.schedule = config, model, schedule
        self.alike = alike
        self.layout = config.with_(tiles=1) if alike else config
        """The accelerator that the programs are made for."""
        self.decodes = model.classifier is not None
        self.tokens = tokens
        self.chunk = min(
            round_up(chunk, config.block), config.rows_max // config.block * config.block
        )
        if not self.chunk:
            raise CapacityError(
                f"a whole model needs rows_max of a block at least, {config.block}, "
                f"not {config.rows_max}"
            )
        self.first_norm = normalizes_first(schedule)
        self.b = Builder(self.layout, piece=max(1, config.scratchpad_depth // _PIECES))
        self.layers = [LayerWeights(self.b, layer, schedule) for layer in model.layers]
        self.last = _LastNorm(self)
        self._caches = self._make_caches() if self.decodes else []
        self.b.mark()
        self._persistent = list(self.b.buffers)
        self._programs: dict[tuple[int, int, int | None], ModelProgram] = {}
        self.regions: list[Region] = []
        self._end = DATA
        self._homes()
        w = self.layers[0]
        self._input = self._region(
            "input", self.layout.tiles * self._slot_bytes(max(self.chunk, tokens) * w.model_words)
        )
        self._output = self._region("output", self.layout.tiles * self._slot_bytes(self.last.words))
        self._stay()
        self.regions.sort(key=lambda region: region.address)

    # What stays

    def _make_caches(self) -> list[_Cache]:
        b, c = self.b, self.layout
        return [
            _Cache(
                k=b.cache(self.tokens, w.kv_heads * w.head_blocks),
                v=b.stationary(w.kv_heads * w.head_dim, ceil_div(self.tokens, c.block)),
                x=b.cache(self.chunk, w.model_blocks * c.tiles),
            )
            for w in self.layers
        ]

    def _stay(self) -> None:
        """Decide what stays: the first choice under which the largest programs fit."""
        choices = [(True, True), (False, True)] + [(False, False)] * self.decodes
        for choice in choices:
            self.resident, self.cached = choice
            self._settle()
            try:
                for position in {0, self.tokens - 1} if self.decodes else {0}:
                    self._plan(position, self._rows_at(position))
            except CapacityError:
                if choice == choices[-1]:
                    raise
            else:
                return

    def _rows_at(self, position: int) -> int:
        """The most tokens that one program takes from a position on."""
        if not self.decodes:
            return self.tokens
        return min(self.chunk, self.tokens) if position == 0 else 1

    def _settle(self) -> None:
        """Give what stays its place, from the top of the memories down."""
        top = {memory: words(self.config, memory) for memory in (Memory.SCRATCHPAD, Memory.VECTOR)}
        caches = {self.b.buffer(m) for cache in self._caches for m in (cache.k, cache.v, cache.x)}
        for buffer in self._persistent:
            buffer.base = None
            if self.cached if buffer in caches else self.resident:
                top[buffer.memory] -= buffer.size
                buffer.base = top[buffer.memory]

    # DRAM

    def _region(self, name: str, size: int) -> int:
        address = self._end
        self.regions.append(Region(name, address, size))
        self._end += round_up(size, ALIGNMENT)
        return address

    def _slot_bytes(self, words: int) -> int:
        """Bytes of a tile's words of floats."""
        return round_up(words * float_word_bytes(self.config), ALIGNMENT)

    def _homes(self) -> None:
        """Places in DRAM for constants and caches."""
        c, start = self.layout, self._end
        for buffer in self._persistent:
            shared = buffer.contents is not None and buffer.contents.ndim == 2
            tiles = 1 if shared else c.tiles
            if buffer.memory == Memory.VECTOR:
                step = self._slot_bytes(buffer.size)
                buffer.home = Home(self._end, step, shared=shared)
                self._end += tiles * step
            else:
                step = round_up(buffer.size * c.block, ALIGNMENT)
                narrow = round_up(buffer.size * EXPONENT_BYTES, ALIGNMENT)
                buffer.home = Home(self._end, step, self._end + tiles * step, narrow, shared)
                self._end += tiles * (step + narrow)
        self.regions.append(Region("weights and caches", start, self._end - start))
        self._rotation: list[tuple[int, Floats]] = []
        if self.layers[0].centred:
            return
        for name, values in zip(
            ("cosines", "sines"), self.layers[0].rotation(self.tokens), strict=True
        ):
            size = values.shape[0] * values.shape[1] // c.lanes * float_word_bytes(c)
            self._rotation.append((self._region(name, size), values))

    def image(self) -> bytes:
        """DRAM before the first program, from address 0 on."""
        image = np.zeros(self._end, dtype=np.uint8)

        def put(address: int, data: np.ndarray) -> None:
            raw = np.ascontiguousarray(data).view(np.uint8).ravel()
            image[address : address + len(raw)] = raw

        for buffer in self._persistent:
            home, contents = buffer.home, buffer.contents
            if contents is None:
                continue
            assert home is not None
            for tile, values in enumerate(contents if contents.ndim == 3 else contents[None]):
                at = home.dram + tile * home.dram_tile
                if buffer.memory == Memory.VECTOR:
                    put(at, self._encode(values))
                else:
                    blocks = quantize(values, self.config.block)
                    put(at, blocks.mantissas)
                    put(home.exponents + tile * home.exponents_tile, blocks.exponents)
        for address, values in self._rotation:
            put(address, self._encode(values))
        return image.tobytes()

    @property
    def dram_bytes(self) -> int:
        """Bytes of DRAM in use."""
        return self._end

    def _encode(self, values: Floats) -> np.ndarray:
        bits = self.b.fmt.encode(self.b.fmt.round(values))
        return bits.astype(f"<u{float_slot(self.config) // 8}")

    # Input and output

    def input(self, x: Floats) -> list[tuple[int, bytes]]:
        """What the host writes for input rows ``[token, feature]``: addresses and bytes."""
        parts = self.layers[0].model.tiles(x, 1)
        step = self._slot_bytes(len(x) * self.layers[0].model_words)
        return [
            (self._input + tile * step, self._encode(part).tobytes())
            for tile, part in enumerate(parts)
        ]

    def output_ranges(self, program: ModelProgram) -> list[tuple[int, int]]:
        """Where a program's output lies: address and bytes, by tile."""
        words = self._output_rows(program.rows) * self.last.row_words
        step = self._slot_bytes(words)
        return [
            (self._output + tile * step, words * float_word_bytes(self.config))
            for tile in range(self.layout.tiles)
        ]

    def output(self, program: ModelProgram, parts: list[bytes]) -> Floats:
        """The output from its bytes: logits ``[1, classes]``, or features ``[token, dim]``."""
        slot = f"<u{float_slot(self.config) // 8}"
        bits = np.stack([np.frombuffer(part, slot) for part in parts]).astype(np.uint64)
        rows = self._output_rows(program.rows)
        values = self.b.fmt.decode(bits).reshape(self.layout.tiles, rows, -1)
        return self.last.spread.gather(values)

    def _output_rows(self, rows: int) -> int:
        return 1 if self.decodes else rows

    # Programs

    def prologue(self) -> ModelProgram:
        """Loads what stays; run it once, before all others."""
        operations = [
            load(buffer, buffer.base)
            for buffer in self._persistent
            if buffer.base is not None and buffer.contents is not None
        ]
        return self._program(Plan(operations), 0, 0, 0)

    def step(self, position: int, rows: int = 1) -> ModelProgram:
        """Decoders: `rows` tokens from `position` on; the logits of the last one.

        A step of several tokens must begin at a multiple of `chunk`, and takes `chunk` at most.

        Raises
        ------
        CapacityError
            If the caches have no room for so many tokens.
        """
        if not self.decodes:
            raise ValueError(f"{self.model.name} is an encoder: it has no steps")
        self.check_room(position + rows)
        if rows < 1 or (rows > 1 and (position % self.chunk or rows > self.chunk)):
            raise ValueError(f"{rows} rows from position {position} in chunks of {self.chunk}")
        return self._made(position, rows, None)

    def encode(self, rows: int, length: int | None = None) -> ModelProgram:
        """Encoders: a text of `rows` tokens, those from `length` on masked.

        Raises
        ------
        CapacityError
            If there is no room for so many tokens.
        """
        if self.decodes:
            raise ValueError(f"{self.model.name} is a decoder: it works in steps")
        self.check_room(rows)
        return self._made(0, rows, length)

    def _made(self, position: int, rows: int, length: int | None) -> ModelProgram:
        """A program; those that were made before are kept."""
        key = position, rows, length
        if key not in self._programs:
            self._programs[key] = self._program(*self._plan(*key))
        return self._programs[key]

    def check_room(self, tokens: int) -> None:
        """Raise a `CapacityError` if there is no room for so many tokens."""
        if tokens > self.tokens:
            raise CapacityError(f"there is room for {self.tokens} tokens, not {tokens}")

    def _program(self, plan: Plan, rows: int, ideal: int, macs: int) -> ModelProgram:
        assembler = Assembler(self.config)
        for operation in plan.operations:
            fields = operation.fields
            if self.alike and operation.opcode in (Opcode.LOAD, Opcode.STORE):
                fields = fields | {"shared": 1}
            assembler.emit(operation.opcode, **fields)
        instructions = assembler.finish()
        if len(instructions) * INSTRUCTION_BYTES > DATA:
            raise CapacityError(
                f"the program has {len(instructions)} instructions; there is room for "
                f"{DATA // INSTRUCTION_BYTES}"
            )
        moved = sum(
            end - first
            for i in instructions
            if i.opcode in (Opcode.LOAD, Opcode.STORE)
            for first, end in dram_ranges(self.config, i)
        )
        return ModelProgram(instructions, rows, ideal, macs, moved, plan.used)

    def _plan(
        self, position: int, rows: int, length: int | None = None
    ) -> tuple[Plan, int, int, int]:
        """A step's operations with their places; its rows, ideal cycles and multiplications."""
        b, c = self.b, self.layout
        b.rewind()
        step = Step(
            tokens=rows,
            groups=list(pieces(rows, c.rows_max)),
            length=position + rows if length is None else length,
            position=position,
            tail=position % c.block if rows == 1 else 0,
        )
        first = self.layers[0]
        table = b.table(rows, first.model_words)
        size = rows * first.model_words
        self._move(Opcode.LOAD, table, self._input, (0, size), size)
        rotation = self._load_rotation(step)
        cache = self._open(0, step)
        blocks, x = self._operands(0, step, cache)
        for part in step.groups:
            self._blocks_of(table, blocks, part)
        macs = 0
        for number, w in enumerate(self.layers):
            b.reuse_rows()
            last = number + 1 == len(self.layers)
            following = None if last else self._open(number + 1, step)
            out_blocks, next_x = self._operands(number + 1, step, following)
            out_table = b.table(rows, w.model_words)
            k = cache.k if cache else b.stationary(rows, w.kv_heads * w.head_blocks)
            v = cache.v if cache else b.stationary(w.kv_heads * w.head_dim, ceil_div(rows, c.block))
            program = LayerProgram(
                b,
                w,
                self.schedule,
                step,
                in_blocks=blocks,
                in_table=table,
                out_blocks=out_blocks,
                out_table=out_table,
                x=x,
                k=k,
                v=v,
                rotation=rotation,
                tail_x=cache.x.below(position % self.chunk - step.tail) if cache else None,
            )
            if cache:
                self._fill(number, step, cache)
            program.emit()
            b.check()
            macs += program.macs()
            if cache:
                self._close(number, step, cache)
            cache, blocks, x, table = following, out_blocks, next_x, out_table
        b.reuse_rows()
        macs += self.last.emit(step, blocks, table)
        b.check()
        return streamed_plan(c, b.buffers, b.operations), rows, b.ideal, macs

    def _move(self, opcode: Opcode, table: Table, address: int, words: Rows, whole: int) -> None:
        """Some of the `whole` floats of a region of DRAM to or from it, each tile its part."""
        first, count = words
        self.b.emit(
            opcode,
            target=Target.FLOATS,
            count=count,
            base=table.base + first,
            dram=address + first * float_word_bytes(self.config),
            dram_tile=self._slot_bytes(whole),
        )

    def store_output(self, table: Table, words: Rows, whole: int) -> None:
        """Emit the STORE of some words, (first, count), of a program's `whole` output."""
        self._move(Opcode.STORE, table, self._output, words, whole)

    def _load_rotation(self, step: Step) -> tuple[Table, Table] | None:
        """Cosines and sines of a step's positions."""
        if not self._rotation:
            return None
        tables = []
        for address, values in self._rotation:
            row = values.shape[1] // self.config.lanes
            table = self.b.table(step.tokens, row)
            self.b.emit(
                Opcode.LOAD,
                target=Target.FLOATS,
                count=step.tokens * row,
                base=table.base,
                shared=1,
                dram=address + step.position * row * float_word_bytes(self.config),
            )
            tables.append(table)
        return tables[0], tables[1]

    def _operands(self, number: int, step: Step, cache: _Cache | None) -> tuple[Shared, Shared]:
        """The input blocks of a layer (or of the last norm), and what its products multiply."""
        b, w = self.b, self.layers[min(number, len(self.layers) - 1)]
        if cache is None:
            blocks = b.shared(step.tokens, w.model_blocks)
            return blocks, b.shared(step.tokens, w.model_blocks) if self.first_norm else blocks
        kept = cache.x.below(step.position % self.chunk)
        alone = self.layout.tiles == 1
        x = Shared(kept if alone else b.streamed(step.tokens, w.model_blocks), kept)
        return (b.shared(step.tokens, w.model_blocks) if self.first_norm else x), x

    def _blocks_of(self, table: Table, blocks: Shared, rows: Rows) -> None:
        """The blocks of rows of floats, for all tiles where they are multiplied as they are."""
        b = self.b
        b.vector(
            rows[1],
            ceil_div(self.model.dim, self.layout.tiles),
            Source.VECTOR,
            x_base=table.at(rows[0]),
            x_row=table.row,
            **b.to_blocks(blocks.local, rows[0]),
        )
        if not self.first_norm:
            b.publish(blocks, rows)

    # Caches in DRAM

    def _open(self, number: int, step: Step) -> _Cache | None:
        """A layer's caches: those that stay, or room for them, with the inputs of the tail."""
        if not self.decodes:
            return None
        kept = self._caches[number]
        if self.cached:
            return kept
        b, w, block = self.b, self.layers[number], self.config.block
        end = step.position + step.tokens
        cache = _Cache(
            k=b.cache(end, kept.k.blocks),
            v=b.stationary(w.kv_heads * w.head_dim, ceil_div(end, block)),
            x=b.cache(self.chunk, kept.x.blocks),
        )
        first = step.position % self.chunk
        self._rows(Opcode.LOAD, cache.x, kept.x, first - step.tail, step.tail)
        return cache

    def _fill(self, number: int, step: Step, cache: _Cache) -> None:
        """Load the keys and values of earlier tokens; a block that grows is made again."""
        if not self.cached:
            kept = self._caches[number]
            self._rows(Opcode.LOAD, cache.k, kept.k, 0, step.position)
            self._values(Opcode.LOAD, cache.v, kept.v, 0, step.position // self.config.block)

    def _close(self, number: int, step: Step, cache: _Cache) -> None:
        """Store what a step added to a layer's caches."""
        if self.cached:
            return
        kept, block = self._caches[number], self.config.block
        self._rows(Opcode.STORE, cache.k, kept.k, step.position, step.tokens)
        first = step.position // block
        blocks = ceil_div(step.position + step.tokens, block) - first
        self._values(Opcode.STORE, cache.v, kept.v, first, blocks)
        self._rows(Opcode.STORE, cache.x, kept.x, step.position % self.chunk, step.tokens)

    def _rows(self, opcode: Opcode, here: Matrix, there: Matrix, first: int, count: int) -> None:
        self._part(opcode, here.at(first), there, first * there.blocks, count * there.blocks)

    def _values(self, opcode: Opcode, here: Matrix, there: Matrix, first: int, count: int) -> None:
        self._part(opcode, here.at(0, first), there, first * there.rows, count * there.rows)

    def _part(self, opcode: Opcode, base: int, kept: Matrix, first: int, count: int) -> None:
        """Move words `first` and on of a cache."""
        if not count:
            return
        home = self.b.buffer(kept).home
        assert home is not None
        self.b.emit(
            opcode,
            target=Target.BLOCKS,
            count=count,
            base=base,
            dram=home.dram + first * self.config.block,
            dram_tile=home.dram_tile,
            exponents=home.exponents + first * EXPONENT_BYTES,
            exponents_tile=home.exponents_tile,
        )


class _LastNorm:
    """The last normalization, and the classifier behind it where there is one."""

    def __init__(self, compiler: ModelCompiler) -> None:
        self.compiler, self.b = compiler, compiler.b
        model, c, b = compiler.model, compiler.layout, compiler.b
        self.w = w = compiler.layers[-1]
        self.mode = Scale.LAYER if w.centred else Scale.RMS
        gamma, beta = model.final_gamma, model.final_beta
        self.bias: Table | None = None
        if model.classifier is None:
            self.spread = w.model
            assert beta is not None
            self.gamma = b.vectors(w.model.tiles(gamma, 0))
            self.bias = b.vectors(w.model.tiles(beta, 0))
        else:
            each = ceil_div(len(model.classifier), c.tiles)
            self.spread = slices(len(model.classifier), c.tiles, c.lanes)
            self.columns = list(pieces(each, c.acc_width))
            folded = scaled(model.classifier, gamma)
            if w.centred and not compiler.first_norm and not hollow(folded):
                folded = centre(folded)
            weights = self.spread.tiles(w.model.flat(folded, 1), 0)
            # A program ends with the last piece's products: the shorter, the better.
            self.classifier = b.weights(weights, self.columns, joined=False)
            if beta is not None:
                self.bias = b.vectors(self.spread.tiles(model.classifier @ beta, 0))

    @property
    def row_words(self) -> int:
        """Words of a row of output in a tile."""
        return self.spread.width // self.b.config.lanes

    @property
    def words(self) -> int:
        """Words of the largest output in a tile."""
        return self.row_words * (1 if self.compiler.decodes else self.compiler.tokens)

    def emit(self, step: Step, blocks: Shared, table: Table) -> int:
        """Emit it for a step's output; the multiplications that it needs."""
        if not self.compiler.decodes:
            self._normalize_all(step, blocks, table)
            return 0
        return self._classify((step.tokens - 1, 1), blocks, table)

    def _reduce(self, rows: int, stat: int, scale: int) -> None:
        layer = self.w.layer
        self.b.reduce(self.mode, rows, stat, scale, tree=True, d=layer.dim, eps=layer.eps)

    def _affine(self, scale: int) -> dict[str, int]:
        """Fields of a pass that normalizes."""
        fields = {"a": Operand.ROW_SCALE, "scale_base": scale}
        return fields | ({"b": Operand.ROW_SCALE} if self.w.centred else {})

    def _pass(self, rows: Rows, table: Table, **fields: int) -> None:
        """A vector pass over a tile's slice of rows of floats."""
        self.b.vector(
            rows[1],
            ceil_div(self.w.layer.dim, self.b.config.tiles),
            Source.VECTOR,
            x_base=table.at(rows[0]),
            x_row=table.row,
            **fields,
        )

    def _normalize_all(self, step: Step, blocks: Shared, table: Table) -> None:
        """Encoders: all rows, with gamma and beta, to the output."""
        b = self.b
        out = b.table(step.tokens, self.row_words)
        most = max(count for _, count in step.groups)
        stat, scale = b.stat_rows(most), b.scale_rows(step.tokens)
        assert self.bias is not None
        for rows in step.groups:
            at = scale + rows[0]
            b.scan(blocks.local, rows, stat, stat_first=1, stat_squares=1)
            self._reduce(rows[1], stat, at)
            self._pass(rows, table, **self._affine(at), **b.to_table(out, rows[0]))
            fields = {"a": Operand.VECTOR, "p_base": self.gamma.at(0), "p_row": 0}
            fields |= b.add_vector(self.bias) | b.to_table(out, rows[0])
            self._pass(rows, out, **fields)
        count = step.tokens * self.row_words
        self.compiler.store_output(out, (0, count), count)

    def _classify(self, rows: Rows, blocks: Shared, table: Table) -> int:
        """Decoders: the logits of one row."""
        b, c, w = self.b, self.b.config, self.w
        out, stat, scale = b.table(1, self.row_words), b.stat_rows(1), b.scale_rows(1)
        schedule, scaled = self.compiler.schedule, {}
        x = blocks
        if self.compiler.first_norm:
            x = b.shared(1, w.model_blocks)
            b.scan(blocks.local, rows, stat, stat_first=1, stat_squares=1)
            self._reduce(1, stat, scale)
            self._pass(rows, table, **self._affine(scale), **b.to_blocks(x.local, 0))
            rows = (0, 1)
            b.publish(x, rows)
        elif schedule == "deferred":
            scaled = {"a": Operand.ROW_SCALE, "scale_base": scale}
        banks = Banks(range(c.acc_banks))
        stored = 0
        for number, columns in enumerate(self.columns):
            bank, tapped, word = banks.take(), {}, columns[0] // c.lanes
            if number > 0 and number + 1 == len(self.columns):
                # All but the last piece, which so is what is left to do in the end.
                stored = word
                self.compiler.store_output(out, (0, word), self.row_words)
            watched = schedule == "deferred" and number == 0
            if watched:
                weights, owned = self.classifier, w.model_blocks
                tapped = b.tap(weights, columns, x.full, rows, stat, owned=owned)
            b.product(x.full, rows, self.classifier, columns, bank, **tapped)
            if watched:
                self._reduce(1, stat, scale)
            fields = scaled | (b.add_vector(self.bias, word) if self.bias else {})
            fields |= b.to_table(out, 0, word)
            b.vector(1, columns[1], Source.ACC, bank=bank, **fields)
        self.compiler.store_output(out, (stored, self.row_words - stored), self.row_words)
        return w.layer.dim * self.spread.features
