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

A batch of sequences decodes in lockstep, each at the same position with caches of its own.  Weights
are multiplied with all sequences' rows at once; attention, and the newest block of the values,
come sequence by sequence.  A sequence gets the bits that it gets alone.  Caches that stay in the
tiles have rows ``[token, sequence]``, so that a step's rows lie together; those in DRAM lie
sequence by sequence, and come one after the other, each while the one before is attended to.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from afternorm.checkpoints.model import Model
from afternorm.compiler.accesses import Memory, covered, dram_ranges
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
from afternorm.compiler.layer import Caches, LayerProgram, Rows, Step
from afternorm.compiler.layer_weights import (
    SCHEDULES,
    LayerWeights,
    Schedule,
    centre,
    normalizes_first,
)
from afternorm.compiler.planner import Plan, fixed_plan, load, streamed_plan
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
    moved, needed : bytes of DRAM that its LOADs and STOREs move; of these, each one that is read
        and each one that is written, once.
    used : words that it needs of each memory of a tile.
    """

    instructions: list[Instruction]
    rows: int
    ideal: int
    macs: int
    moved: int
    needed: int
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
    """Caches in the builder's buffers: of a layer, all sequences, or of one of them."""

    k: Matrix
    v: Matrix
    x: Matrix


@dataclass
class _Opened:
    """A layer's caches in a step.

    Attributes
    ----------
    keys, x : where the keys and inputs of the step's tokens go, a row a token.
    sequences : the caches.
    """

    keys: Matrix
    x: Matrix
    sequences: list[Caches]


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
    batch : decoders: sequences that take a step together, a token each.

    Attributes
    ----------
    resident, cached : whether constants, and caches, stay in the tiles.
    regions : the map of DRAM.

    Raises
    ------
    CapacityError
        If the model does not fit the accelerator in any way.
    ValueError
        If the schedule is unknown, `tokens`, `chunk` or `batch` is less than 1, or a batch of
        several is not to be decoded token by token.
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
        batch: int = 1,
    ) -> None:
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, not {schedule!r}")
        if tokens < 1 or chunk < 1:
            raise ValueError(f"tokens={tokens} and chunk={chunk} must be 1 at least")
        if batch < 1:
            raise ValueError(f"batch={batch} must be 1 at least")
        if batch > 1 and model.classifier is None:
            raise ValueError(f"{model.name} is an encoder: it has no batch={batch} of steps")
        if batch > 1 and chunk > 1:
            raise ValueError(f"batch={batch} decodes token by token: chunk must be 1, not {chunk}")
        if tokens > model.context:
            raise CapacityError(
                f"the context of {model.name} has room for {model.context} tokens, not {tokens}"
            )
        self.config, self.model, self.schedule = config, model, schedule
        self.alike, self.batch = alike, batch
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
        # A batch's programs grow with it.
        self._end = self._room = batch * DATA
        self._homes()
        w, rows = self.layers[0], max(self.chunk, tokens, batch)
        self._input = self._region(
            "input", self.layout.tiles * self._slot_bytes(rows * w.model_words)
        )
        self._output = self._region("output", self.layout.tiles * self._slot_bytes(self.last.words))
        self._stay()
        self.regions.sort(key=lambda region: region.address)

    # What stays

    def _make_caches(self) -> list[_Cache]:
        b, c, batch = self.b, self.layout, self.batch
        return [
            _Cache(
                k=b.cache(self.tokens * batch, w.kv_heads * w.head_blocks),
                v=b.stationary(w.kv_heads * w.head_dim, ceil_div(self.tokens, c.block) * batch),
                x=b.kept(self.chunk * batch, w.model_blocks * c.tiles),
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
        """The most tokens of a sequence that one program takes from a position on."""
        if not self.decodes:
            return self.tokens
        return min(self.chunk, self.tokens) if position == 0 and self.batch == 1 else 1

    def _settle(self) -> None:
        """Give what stays its place: from 0 up what is read as A, from the top down all else."""
        caches = {self.b.buffer(m) for cache in self._caches for m in (cache.k, cache.v, cache.x)}
        stays = []
        for buffer in self._persistent:
            buffer.base = None
            if self.cached if buffer in caches else self.resident:
                stays.append(buffer)
        fixed_plan(self.config, stays)

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
        alike = {self.b.buffer(cache.x) for cache in self._caches}
        for buffer in self._persistent:
            shared = buffer in alike or (buffer.contents is not None and buffer.contents.ndim == 2)
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
        words = self._output_rows(program.rows) * sum(self.last.parts)
        step = self._slot_bytes(words)
        return [
            (self._output + tile * step, words * float_word_bytes(self.config))
            for tile in range(self.layout.tiles)
        ]

    def output(self, program: ModelProgram, parts: list[bytes]) -> Floats:
        """The output: logits ``[sequence, classes]``, or features ``[token, dim]``."""
        slot = f"<u{float_slot(self.config) // 8}"
        bits = np.stack([np.frombuffer(part, slot) for part in parts]).astype(np.uint64)
        rows = self._output_rows(program.rows)
        sizes = [rows * each * self.config.lanes for each in self.last.parts]
        values = np.split(self.b.fmt.decode(bits), np.cumsum(sizes)[:-1], axis=1)
        tables = [some.reshape(self.layout.tiles, rows, -1) for some in values]
        return self.last.spread.gather(np.concatenate(tables, axis=2))

    def _output_rows(self, rows: int) -> int:
        return self.batch if self.decodes else rows

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
        With a batch, a token of each sequence, and the logits of all.

        Raises
        ------
        CapacityError
            If the caches have no room for so many tokens.
        """
        if not self.decodes:
            raise ValueError(f"{self.model.name} is an encoder: it has no steps")
        self.check_room(position + rows)
        chunk = self.chunk if self.batch == 1 else 1
        if rows < 1 or (rows > 1 and (position % chunk or rows > chunk)):
            raise ValueError(f"{rows} rows from position {position} in chunks of {chunk}")
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
        if len(instructions) * INSTRUCTION_BYTES > self._room:
            raise CapacityError(
                f"the program has {len(instructions)} instructions; there is room for "
                f"{self._room // INSTRUCTION_BYTES}"
            )
        moved = needed = 0
        for opcode in (Opcode.LOAD, Opcode.STORE):
            ranges = [
                piece
                for i in instructions
                if i.opcode == opcode
                for piece in dram_ranges(self.config, i)
            ]
            moved += sum(end - first for first, end in ranges)
            needed += covered(ranges)
        return ModelProgram(instructions, rows, ideal, macs, moved, needed, plan.used)

    def _plan(
        self, position: int, rows: int, length: int | None = None
    ) -> tuple[Plan, int, int, int]:
        """A step's operations with their places; its rows, ideal cycles and multiplications."""
        b, c = self.b, self.layout
        b.rewind()
        length = position + rows if length is None else length
        tail, rows = position % c.block if rows == 1 else 0, rows * self.batch
        step = Step(
            tokens=rows,
            groups=list(pieces(rows, c.rows_max)),
            length=length,
            position=position,
            tail=tail,
            batched=self.batch > 1,
        )
        first = self.layers[0]
        table = b.table(rows, first.model_words)
        size = rows * first.model_words
        self._move(Opcode.LOAD, table, self._input, (0, size), size)
        rotation = self._load_rotation(position, 1 if step.batched else rows)
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
            if cache:
                keys, caches = cache.keys, cache.sequences
            else:
                keys = b.stationary(rows, w.kv_heads * w.head_blocks)
                v = b.stationary(w.kv_heads * w.head_dim, ceil_div(rows, c.block))
                caches = [Caches(keys, v, x.full)]
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
                new_keys=keys,
                caches=caches,
                rotation=rotation,
                out_rows=self.last.multiplied(step) if last else None,
            )
            program.emit()
            b.check()
            macs += program.macs()
            cache, blocks, x, table = following, out_blocks, next_x, out_table
        b.reuse_rows()
        macs += self.last.emit(step, blocks, table)
        b.check()
        return streamed_plan(c, b.buffers, b.operations), rows, b.ideal, macs

    def _move(self, opcode: Opcode, table: Table, address: int, words: Rows, whole: int) -> None:
        """Some of the `whole` floats of a region of DRAM from or to a table, each tile its part."""
        first, count = words
        self.b.emit(
            opcode,
            target=Target.FLOATS,
            count=count,
            base=table.base,
            dram=address + first * float_word_bytes(self.config),
            dram_tile=self._slot_bytes(whole),
        )

    def store_output(self, table: Table, words: Rows, whole: int) -> None:
        """Emit the STORE of a table as words (first, count) of a program's `whole` output."""
        self._move(Opcode.STORE, table, self._output, words, whole)

    def _load_rotation(self, position: int, count: int) -> tuple[Table, Table] | None:
        """Cosines and sines of positions."""
        if not self._rotation:
            return None
        tables = []
        for address, values in self._rotation:
            row = values.shape[1] // self.config.lanes
            table = self.b.table(count, row)
            self.b.emit(
                Opcode.LOAD,
                target=Target.FLOATS,
                count=count * row,
                base=table.base,
                shared=1,
                dram=address + position * row * float_word_bytes(self.config),
            )
            tables.append(table)
        return tables[0], tables[1]

    def _operands(self, number: int, step: Step, cache: _Opened | None) -> tuple[Shared, Shared]:
        """The input blocks of a layer (or of the last norm), and what its products multiply."""
        b, w = self.b, self.layers[min(number, len(self.layers) - 1)]
        if cache is None:
            blocks = b.shared(step.tokens, w.model_blocks)
            return blocks, b.shared(step.tokens, w.model_blocks) if self.first_norm else blocks
        alone = self.layout.tiles == 1
        x = Shared(cache.x if alone else b.streamed(step.tokens, w.model_blocks), cache.x)
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

    def _open(self, number: int, step: Step) -> _Opened | None:
        """A layer's caches: those that stay, or room for them, with the inputs of a lone tail."""
        if not self.decodes:
            return None
        kept, slot, batch = self._caches[number], step.position % self.chunk, self.batch
        each = kept.v.blocks // batch
        if self.cached:
            some = [
                _Cache(
                    k=kept.k.below(one).every(batch),
                    v=kept.v.part(one * each, each),
                    x=kept.x.below(one).every(batch),
                )
                for one in range(batch)
            ]
            caches = [Caches(one.k, one.v, one.x.below(slot - step.tail)) for one in some]
            return _Opened(kept.k.below(step.position * batch), kept.x.below(slot * batch), caches)
        b, w, block = self.b, self.layers[number], self.config.block
        end = step.length
        some = [
            _Cache(
                k=b.cache(end, kept.k.blocks),
                v=b.stationary(w.kv_heads * w.head_dim, ceil_div(end, block)),
                x=b.kept(self.chunk, kept.x.blocks),
            )
            for _ in range(batch)
        ]
        if batch == 1:
            keys, x = some[0].k.below(step.position), some[0].x.below(slot)
            self._tail(number, 0, step, some[0])
        else:
            keys, x = b.cache(batch, kept.k.blocks), b.kept(batch, kept.x.blocks)
        caches = [
            Caches(
                one.k,
                one.v,
                one.x.below(slot - step.tail),
                fetch=partial(self._fetch, number, sequence, step, one),
                enter=partial(self._enter, sequence, step, keys, x, one),
                keep=partial(self._keep, number, sequence, step, one),
            )
            for sequence, one in enumerate(some)
        ]
        return _Opened(keys, x, caches)

    def _tail(self, number: int, sequence: int, step: Step, cache: _Cache) -> None:
        """Load the inputs of the tail."""
        first = step.position % self.chunk - step.tail
        self._rows(Opcode.LOAD, cache.x, self._caches[number].x, sequence, first, step.tail)

    def _fetch(self, number: int, sequence: int, step: Step, cache: _Cache) -> None:
        """Load what earlier tokens left; a block of values that grows is made again."""
        kept = self._caches[number]
        if self.batch > 1:
            self._tail(number, sequence, step, cache)
        self._rows(Opcode.LOAD, cache.k, kept.k, sequence, 0, step.position)
        full = step.position // self.config.block
        self._values(Opcode.LOAD, cache.v, kept.v, sequence, 0, full)

    def _enter(self, sequence: int, step: Step, keys: Matrix, x: Matrix, cache: _Cache) -> None:
        """Copy a sequence's row of the step's keys and inputs to its caches, exactly."""
        for rows, to in (
            (keys, cache.k.below(step.position)),
            (x, cache.x.below(step.position % self.chunk)),
        ):
            for first, count in pieces(rows.blocks, self.config.rows_max):
                self.b.vector(
                    count,
                    self.config.block,
                    Source.BLOCKS,
                    x_base=rows.at(sequence, first),
                    x_row=rows.block_step,
                    **self.b.to_blocks(to, 0, first) | {"m_row": to.block_step},
                )

    def _keep(self, number: int, sequence: int, step: Step, cache: _Cache) -> None:
        """Store what a step added to a sequence's caches."""
        kept, block, first = self._caches[number], self.config.block, step.position
        count = step.length - first
        self._rows(Opcode.STORE, cache.k, kept.k, sequence, first, count)
        blocks = ceil_div(step.length, block) - first // block
        self._values(Opcode.STORE, cache.v, kept.v, sequence, first // block, blocks)
        self._rows(Opcode.STORE, cache.x, kept.x, sequence, first % self.chunk, count)

    def _rows(
        self, opcode: Opcode, here: Matrix, there: Matrix, sequence: int, first: int, count: int
    ) -> None:
        """Move rows of a sequence's cache."""
        row = sequence * (there.rows // self.batch) + first
        self._part(opcode, here.at(first), there, row * there.blocks, count * there.blocks)

    def _values(
        self, opcode: Opcode, here: Matrix, there: Matrix, sequence: int, first: int, count: int
    ) -> None:
        """Move blocks of a sequence's transposed values."""
        block = sequence * (there.blocks // self.batch) + first
        self._part(opcode, here.at(0, first), there, block * there.rows, count * there.rows)

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
            shared=int(home.shared),
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
    def parts(self) -> list[int]:
        """Words of a row of output in a tile, by table: decoders, the last product's apart."""
        row = self.spread.width // self.b.config.lanes
        if not self.compiler.decodes or len(self.columns) == 1:
            return [row]
        last = self.columns[-1][0] // self.b.config.lanes
        return [last, row - last]

    @property
    def words(self) -> int:
        """Words of the largest output in a tile."""
        compiler = self.compiler
        return sum(self.parts) * (compiler.batch if compiler.decodes else compiler.tokens)

    def emit(self, step: Step, blocks: Shared, table: Table) -> int:
        """Emit it for a step's output; the multiplications that it needs."""
        if not self.compiler.decodes:
            self._normalize_all(step, blocks, table)
            return 0
        groups = step.groups if step.batched else [self.multiplied(step)]
        return self._classify(groups, blocks, table)

    def multiplied(self, step: Step) -> Rows:
        """The rows that the classifier multiplies: of an encoder none, of a text's the last."""
        if not self.compiler.decodes:
            return 0, 0
        return (0, step.tokens) if step.batched else (step.tokens - 1, 1)

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
        (words,) = self.parts
        out = b.table(step.tokens, words)
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
        count = step.tokens * words
        self.compiler.store_output(out, (0, count), count)

    def _classify(self, groups: list[Rows], blocks: Shared, table: Table) -> int:
        """Decoders: the logits of some rows, in groups.

        What the last product makes is stored by itself: the less is left to do in the end.
        """
        count = sum(rows for _, rows in groups)
        out = [self.b.table(count, words) for words in self.parts]
        for rows in groups:
            self._logits(rows, rows[0] - groups[0][0], blocks, table, out, count)
        self._store(out, len(out) - 1, count)
        return count * self.w.layer.dim * self.spread.features

    def _store(self, out: list[Table], part: int, rows: int) -> None:
        """Store a part of the rows' logits."""
        words = [rows * each for each in self.parts]
        start = sum(words[:part])
        self.compiler.store_output(out[part], (start, words[part]), sum(words))

    def _logits(
        self, rows: Rows, to: int, blocks: Shared, table: Table, out: list[Table], total: int
    ) -> None:
        """The logits of a group of rows, to the rows `to` and on of `total` in the tables `out`."""
        b, c, w = self.b, self.b.config, self.w
        stat, scale = b.stat_rows(rows[1]), b.scale_rows(rows[1])
        schedule, scaled = self.compiler.schedule, {}
        last = to + rows[1] == total
        x = blocks
        if self.compiler.first_norm:
            x = b.shared(rows[1], w.model_blocks)
            b.scan(blocks.local, rows, stat, stat_first=1, stat_squares=1)
            self._reduce(rows[1], stat, scale)
            self._pass(rows, table, **self._affine(scale), **b.to_blocks(x.local, 0))
            rows = (0, rows[1])
            b.publish(x, rows)
        elif schedule == "deferred":
            scaled = {"a": Operand.ROW_SCALE, "scale_base": scale}
        banks = Banks(range(c.acc_banks))
        for number, columns in enumerate(self.columns):
            bank, tapped, word = banks.take(), {}, columns[0] // c.lanes
            if number > 0 and number + 1 == len(self.columns) and last:
                self._store(out, 0, total)
            watched = schedule == "deferred" and number == 0
            if watched:
                weights, owned = self.classifier, w.model_blocks
                tapped = b.tap(weights, columns, x.full, rows, stat, owned=owned)
            b.product(x.full, rows, self.classifier, columns, bank, **tapped)
            if watched:
                self._reduce(rows[1], stat, scale)
            fields = scaled | (b.add_vector(self.bias, word) if self.bias else {})
            part = int(0 < number == len(self.columns) - 1)
            fields |= b.to_table(out[part], to, word - part * self.parts[0])
            b.vector(rows[1], columns[1], Source.ACC, bank=bank, **fields)
