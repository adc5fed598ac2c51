# SPDX-License-Identifier: Apache-2.0
"""LOAD and STORE instructions cut into bursts.

A tile's words are moved in runs of at most `RUN` words.  A run of scratchpad
blocks is two bursts, of the mantissas and of the exponents; a run of vector
memory words is one.  Runs follow each other through a tile's words and then
through the tiles; a `shared` instruction has one tile's runs only.

A run takes four cycles (one more a tile, two an instruction) and a cycle for
each that a burst waits: less than the words of a full run take.
"""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from afternorm.config import Config
from afternorm.isa import DRAM_ADDRESS, Opcode, Target
from afternorm.memory_map import EXPONENT_BYTES, float_word_bytes
from hdl.interfaces import BURST_BITS, body_layout, burst_layout, engine_members

RUN = 32
"""The most words of a run."""
BURST = 128
"""The most beats of a burst of words larger than a beat."""


class Part(enum.Enum, shape=2):
    """What a burst carries."""

    MANTISSAS = 0
    EXPONENTS = 1
    FLOATS = 2


def beat_bytes(config: Config) -> int:
    """Bytes of a beat."""
    return config.dram_width // 8


def word_shift(config: Config, part: Part) -> int:
    """log2 of the bytes of a word's part."""
    sizes = {
        Part.MANTISSAS: config.block,
        Part.EXPONENTS: EXPONENT_BYTES,
        Part.FLOATS: float_word_bytes(config),
    }
    return exact_log2(sizes[part])


def span_bits(config: Config, part: Part) -> int:
    """log2 of the words' parts in a beat, or of a word's beats where it is larger than a beat."""
    return abs(exact_log2(beat_bytes(config)) - word_shift(config, part))


def exceeds_beat(config: Config, part: Part) -> bool:
    """Whether a word's part is larger than a beat."""
    return word_shift(config, part) > exact_log2(beat_bytes(config))


def exponent_rows(config: Config) -> int:
    """Beats that the exponents of a run may lie in, as a power of two."""
    slots = beat_bytes(config) // EXPONENT_BYTES
    return 1 << ceil_log2(-(-(RUN + slots - 1) // slots))


def word_address_bits(config: Config) -> int:
    """Bits of an address of the scratchpad or of the vector memory."""
    return ceil_log2(max(config.scratchpad_depth, config.vector_depth))


def part_layout(config: Config) -> data.StructLayout:
    """What a burst carries.

    `part` : mantissas, exponents or floats.
    `offset` : of the first byte in its beat.
    `steps`, `words` : of its beats and words the more; its words.
    `exponent` : place in its beat of the run's first exponent.
    `base` : address in the tile's memory of the first word.
    `tile`, `shared` : the tile whose turn it is, or all.
    `last` : the instruction ends with this burst.
    """
    return data.StructLayout(
        {
            "part": Part,
            "offset": exact_log2(beat_bytes(config)),
            "steps": BURST_BITS,
            "words": range(RUN + 1),
            "exponent": range(beat_bytes(config) // EXPONENT_BYTES),
            "base": word_address_bits(config),
            "tile": range(max(2, config.tiles)),
            "shared": 1,
            "last": 1,
        }
    )


def transfer_layout(config: Config) -> data.StructLayout:
    """A burst and what it carries."""
    return data.StructLayout({"burst": burst_layout(config), "carries": part_layout(config)})


class Bursts(wiring.Component):
    """Cuts instructions into bursts.

    Parameters
    ----------
    config : sizes.
    opcode : LOAD, which wants the exponents of a run first, or STORE, which wants them last.

    Members
    -------
    i : stream in. Instructions.
    alone : in. No instruction but the one accepted last is in flight: one that drains begins.
    o : stream out. The bursts of each, in order.
    """

    def __init__(self, *, config: Config, opcode: Opcode):
        self.config = config
        self.opcode = opcode
        super().__init__(
            {
                "i": engine_members(opcode)["i"],
                "alone": In(1),
                "o": Out(stream.Signature(transfer_layout(config))),
            }
        )

    def _beats(self, part: Part, address: Value, words: Value) -> Value:
        """Beats of a burst."""
        span = span_bits(self.config, part)
        if exceeds_beat(self.config, part):
            return words << span
        shift = word_shift(self.config, part)
        first = address[shift : shift + span]
        return (first + words + ((1 << span) - 1)) >> span

    def elaborate(self, platform):
        m = Module()
        c = self.config
        body = Signal(body_layout(self.opcode), reset_less=True)
        drain = Signal()
        floats = body.target == Target.FLOATS

        # Where the tile's words begin in DRAM, and where the run does.
        tile_dram = Signal(DRAM_ADDRESS, reset_less=True)
        tile_exponents = Signal.like(tile_dram)
        dram = Signal.like(tile_dram)
        exponents = Signal.like(tile_dram)
        base = Signal(word_address_bits(c), reset_less=True)
        left = Signal.like(body.count, reset_less=True)
        tile = Signal(range(max(2, c.tiles)), reset_less=True)
        last_tile = body.shared | (tile == c.tiles - 1)

        words = Signal(range(RUN + 1), reset_less=True)
        limits = {
            part: min(RUN, BURST >> span_bits(c, part)) if exceeds_beat(c, part) else RUN
            for part in (Part.MANTISSAS, Part.FLOATS)
        }
        limit = Mux(floats, limits[Part.FLOATS], limits[Part.MANTISSAS])
        beats = Signal(BURST_BITS, reset_less=True)
        steps = Signal.like(beats)
        exponent_beats = Signal.like(beats)
        longest = RUN << max(word_shift(c, part) for part in limits)
        advance = Signal(range(longest + 1), reset_less=True)
        last_run = left == 0

        out = self.o.payload.carries
        address = Signal(DRAM_ADDRESS)
        beat_shift = exact_log2(beat_bytes(c))
        m.d.comb += [
            self.o.payload.burst.address[beat_shift:].eq(address[beat_shift:]),
            out.offset.eq(address),
            out.words.eq(words),
            out.exponent.eq(exponents[word_shift(c, Part.EXPONENTS) :]),
            out.base.eq(base),
            out.tile.eq(tile),
            out.shared.eq(body.shared),
        ]

        ends = last_run & last_tile
        exponents_first = self.opcode == Opcode.LOAD

        def finish_run() -> None:
            m.d.sync += [
                dram.eq(dram + advance),
                exponents.eq(exponents + (words << word_shift(c, Part.EXPONENTS))),
                base.eq(base + words),
            ]
            with m.If(ends):
                m.next = "IDLE"
            with m.Elif(last_run):
                m.next = "TILE"
            with m.Else():
                m.next = "RUN"

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                new = body_layout(self.opcode)(self.i.payload.body)
                m.d.sync += [
                    body.eq(new),
                    drain.eq(self.i.payload.drain),
                    *(start.eq(new.dram) for start in (tile_dram, dram)),
                    *(start.eq(new.exponents) for start in (tile_exponents, exponents)),
                    base.eq(new.base),
                    left.eq(new.count),
                    tile.eq(0),
                ]
                with m.If(self.i.valid):
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.sync += words.eq(Mux(left > limit, limit, left))
                with m.If(~drain | self.alone):
                    m.next = "COUNT"
            with m.State("COUNT"):
                for part, is_part in ((Part.MANTISSAS, ~floats), (Part.FLOATS, floats)):
                    with m.If(is_part):
                        count = self._beats(part, dram, words)
                        m.d.sync += [
                            beats.eq(count),
                            steps.eq(count if exceeds_beat(c, part) else words),
                            advance.eq(words << word_shift(c, part)),
                        ]
                m.d.sync += [
                    exponent_beats.eq(self._beats(Part.EXPONENTS, exponents, words)),
                    left.eq(left - words),
                ]
                if exponents_first:
                    with m.If(floats):
                        m.next = "WORDS"
                    with m.Else():
                        m.next = "EXPONENTS"
                else:
                    m.next = "WORDS"
            with m.State("WORDS"):
                m.d.comb += [
                    self.o.valid.eq(1),
                    out.part.eq(Mux(floats, Part.FLOATS, Part.MANTISSAS)),
                    address.eq(dram),
                    self.o.payload.burst.beats.eq(beats),
                    out.steps.eq(steps),
                    out.last.eq(ends & (1 if exponents_first else floats)),
                ]
                with m.If(self.o.ready):
                    if exponents_first:
                        finish_run()
                    else:
                        with m.If(floats):
                            finish_run()
                        with m.Else():
                            m.next = "EXPONENTS"
            with m.State("EXPONENTS"):
                m.d.comb += [
                    self.o.valid.eq(1),
                    out.part.eq(Part.EXPONENTS),
                    address.eq(exponents),
                    self.o.payload.burst.beats.eq(exponent_beats),
                    out.steps.eq(exponent_beats),
                    out.last.eq(ends & (not exponents_first)),
                ]
                with m.If(self.o.ready):
                    if exponents_first:
                        m.next = "WORDS"
                    else:
                        finish_run()
            with m.State("TILE"):
                next_dram = tile_dram + body.dram_tile
                next_exponents = tile_exponents + body.exponents_tile
                m.d.sync += [
                    *(start.eq(next_dram) for start in (tile_dram, dram)),
                    *(start.eq(next_exponents) for start in (tile_exponents, exponents)),
                    base.eq(body.base),
                    left.eq(body.count),
                    tile.eq(tile + 1),
                ]
                m.next = "RUN"
        return m
