# SPDX-License-Identifier: Apache-2.0
"""Layouts and port signatures that the accelerator's components share.

Two rules keep the machine simple and fast:

* Datapaths never stall.  A unit that may have to wait (for a scratchpad write
  port, say) waits where it *issues*: it starts a chunk only when the buffer at
  the end of its pipeline has room for it.
* Instructions are checked before they reach an engine (`hdl.scheduler.checker`),
  so no engine checks a count, a selector or an address.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from afternorm.config import Config
from afternorm.isa import BODIES, DRAM_ADDRESS, Opcode
from hdl.arith.format import float_layout

SCRATCHPAD_LATENCY = 3
"""Cycles from an accepted scratchpad read to its data."""
VECTOR_MEMORY_LATENCY = 2
"""Cycles from a vector memory read to its data."""
SCALE_LATENCY = 2
"""Cycles from a scale memory read to its data."""
ACC_LATENCY = 2
"""Cycles from an accumulator read to its data."""

EXPONENT_BITS = 10


def block_layout(block: int) -> data.StructLayout:
    """An MX block: `block` int8 mantissas and a signed exponent."""
    return data.StructLayout(
        {"mantissas": data.ArrayLayout(signed(8), block), "exponent": signed(EXPONENT_BITS)}
    )


def floats_layout(config: Config, count: int) -> data.ArrayLayout:
    """`count` floats side by side."""
    return data.ArrayLayout(float_layout(config.fraction_bits), count)


def body_layout(opcode: Opcode) -> data.StructLayout:
    """The body fields of an instruction, as in `afternorm.isa.BODIES`."""
    return data.StructLayout({name: unsigned(width) for name, width in BODIES[opcode]})


class ReadPort(wiring.Signature):
    """A memory read, seen from the reader.

    Members
    -------
    valid, address : out. The request; holds until `ready`.
    ready : in. The request is accepted in this cycle (always 1 where a memory says so).
    data : in. What was read, a fixed number of cycles after acceptance (`*_LATENCY`).
    """

    def __init__(self, depth: int, shape):
        super().__init__(
            {
                "valid": Out(1),
                "address": Out(ceil_log2(depth)),
                "ready": In(1),
                "data": In(shape),
            }
        )


class WritePort(wiring.Signature):
    """A memory write, seen from the writer; valid, address and data hold until `ready`."""

    def __init__(self, depth: int, shape):
        super().__init__(
            {
                "valid": Out(1),
                "address": Out(ceil_log2(depth)),
                "data": Out(shape),
                "ready": In(1),
            }
        )


def scratchpad_read(config: Config) -> ReadPort:
    """A scratchpad reader's port: one block a request, `SCRATCHPAD_LATENCY`."""
    return ReadPort(config.scratchpad_depth, block_layout(config.block))


class OperandRead(wiring.Signature):
    """Scratchpad reads of the matmul engine, which go before all others.

    There is no `ready`: a read is accepted, except one of B where A reads the same bank.
    """

    def __init__(self, config: Config):
        super().__init__(
            {
                "valid": Out(1),
                "address": Out(ceil_log2(config.scratchpad_depth)),
                "data": In(block_layout(config.block)),
            }
        )


def scratchpad_write(config: Config) -> WritePort:
    """A scratchpad writer's port: one block a transfer."""
    return WritePort(config.scratchpad_depth, block_layout(config.block))


BURST_BITS = 8
"""A burst has 1 to ``2**BURST_BITS - 1`` beats."""


def burst_layout(config: Config) -> data.StructLayout:
    """A burst: its first byte's address, a multiple of the beat's bytes, and its beats (not 0)."""
    return data.StructLayout({"address": DRAM_ADDRESS, "beats": BURST_BITS})


class DramRead(wiring.Signature):
    """Reads of DRAM, seen from the reader.

    Members
    -------
    request : stream out. Bursts.
    beats : stream in. Their beats, `dram_width` bits each, in the order of the requests.
    """

    def __init__(self, config: Config):
        super().__init__(
            {
                "request": Out(stream.Signature(burst_layout(config))),
                "beats": In(stream.Signature(config.dram_width)),
            }
        )


class DramWrite(wiring.Signature):
    """Writes of DRAM, seen from the writer.

    Members
    -------
    request : stream out. Bursts; a burst's beats may be offered before or after it.
    beats : stream out. Beats in the order of the requests, with a strobe bit a byte.
    written : in. A pulse a burst, in order: every later read sees it.
    """

    def __init__(self, config: Config):
        beat = data.StructLayout(
            {"data": config.dram_width, "strobe": config.dram_width // 8, "last": 1}
        )
        super().__init__(
            {
                "request": Out(stream.Signature(burst_layout(config))),
                "beats": Out(stream.Signature(beat)),
                "written": In(1),
            }
        )


class AccumulatorRead(wiring.Signature):
    """A read of C accumulators of one row, seen from the reader; always accepted.

    Members
    -------
    valid, bank, row, tile : out. Columns ``tile*C`` to ``tile*C + C - 1`` of `row` in `bank`.
    data : in. C floats, `ACC_LATENCY` cycles later.
    """

    def __init__(self, config: Config):
        super().__init__(
            {
                "valid": Out(1),
                "bank": Out(ceil_log2(config.acc_banks)),
                "row": Out(ceil_log2(config.rows_max)),
                "tile": Out(ceil_log2(config.column_tiles)),
                "data": In(floats_layout(config, config.columns)),
            }
        )


class ScaleRead(wiring.Signature):
    """A read of E neighbouring row scales, seen from the reader; always accepted.

    Members
    -------
    valid, word : out. Entries ``word*E`` to ``word*E + E - 1``.
    scale0, scale1 : in. E floats each, `SCALE_LATENCY` cycles later.
    """

    def __init__(self, config: Config):
        lanes = floats_layout(config, config.lanes)
        super().__init__(
            {
                "valid": Out(1),
                "word": Out(ceil_log2(config.scale_depth // config.lanes)),
                "scale0": In(lanes),
                "scale1": In(lanes),
            }
        )


class Tap(wiring.Signature):
    """Blocks on their way past the statistics tap, seen from the engine that streams them.

    Members
    -------
    valid : out. A block passes in this cycle; at most one a cycle, never stalled.
    block : out. The block.
    entry : out. Its row's entry in the statistics memory.
    first : out. The row's statistics start with this block (else they go on).
    owned : out. This tile counts the block (else it counts as zeros).
    squares : out. Sum the squares as well.
    """

    def __init__(self, config: Config):
        super().__init__(
            {
                "valid": Out(1),
                "block": Out(block_layout(config.block)),
                "entry": Out(ceil_log2(config.stat_depth)),
                "first": Out(1),
                "owned": Out(1),
                "squares": Out(1),
            }
        )


class TreePort(wiring.Signature):
    """One tile's way to the reduction tree and back, seen from the tile.

    Members
    -------
    valid, o : out. E floats that take part in the sum over the tiles.
    i : in. The sum, `hdl.reduce.tree.ReductionTree.latency` cycles later, at every tile.
    """

    def __init__(self, config: Config):
        lanes = floats_layout(config, config.lanes)
        super().__init__({"valid": Out(1), "o": Out(lanes), "i": In(lanes)})


def engine_payload(*opcodes: Opcode) -> data.StructLayout:
    """What an engine's instruction stream carries.

    `drain`: wait until the engine's earlier instructions are done before touching any
    memory.  `body`: the body's bits, to be viewed as `body_layout(opcode)`.
    """
    width = max(body_layout(opcode).size for opcode in opcodes)
    return data.StructLayout({"opcode": 4, "drain": 1, "body": width})


def engine_members(*opcodes: Opcode) -> dict:
    """The members that every engine has.

    `i` : stream of checked instructions whose semaphores were granted.
    `early`, `done` : a pulse an instruction, in order; each engine says what they mean.
    `busy` : an instruction is being executed.
    `conflict` : a cycle was lost to a memory conflict.
    `flags` : pulses, by `afternorm.isa.Flag`.
    """
    return {
        "i": In(stream.Signature(engine_payload(*opcodes))),
        "early": Out(1),
        "done": Out(1),
        "busy": Out(1),
        "conflict": Out(1),
        "flags": Out(6),
    }
