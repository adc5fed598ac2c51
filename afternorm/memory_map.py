# SPDX-License-Identifier: Apache-2.0
"""The host port's addresses: regions, registers, and how memories appear in them; words in DRAM.

An address counts host words of `host_width` bits: ``region | tile | index``.
Every memory word is one host word, its value in the low bits; floats take slots
of `float_slot` bits.

In DRAM, which is addressed by bytes, a block's mantissas take `block` bytes, its
exponent `EXPONENT_BYTES` elsewhere, a word of the vector memory E float slots, an
instruction `afternorm.isa.INSTRUCTION_BYTES`; all little-endian, all at multiples
of their size (an exponent: signed, in the low 10 bits).
"""

from enum import IntEnum

from afternorm.config import Config
from afternorm.isa import Engine

INDEX_BITS = 20
TILE_BITS = 5
REGION_BITS = 3
ADDRESS_BITS = INDEX_BITS + TILE_BITS + REGION_BITS
ALL_TILES = (1 << TILE_BITS) - 1
"""As the tile of a write: every tile takes it."""

EXPONENT_BYTES = 2
"""Of a block's exponent in DRAM."""

REGISTER_BITS = 32
"""Of a register.  In a host word that is written to one, bit ``REGISTER_BITS + n`` keeps byte n."""
PROGRAM_BITS = 32
"""Of a program's place in DRAM, in units of `afternorm.isa.INSTRUCTION_BYTES`."""
RESET_CYCLES = 256
"""How long a written reset bit holds the machine, so that every pipeline runs empty."""


class Region(IntEnum):
    """What an address points into."""

    REGISTERS = 0
    MANTISSAS = 1
    """of scratchpad blocks, 8 bits each"""
    EXPONENTS = 2
    """of scratchpad blocks, signed, in the low 10 bits"""
    VECTOR = 3
    """words of the vector memory: E floats"""
    SCALE0 = 4
    """words of the scale memory: E floats; read only"""
    SCALE1 = 5


class Register(IntEnum):
    """Registers, by index; `afternorm.register_map` says what is in them."""

    CONTROL = 0
    PROGRAM_LOW = 1
    PROGRAM_HIGH = 2
    STATUS = 3
    ERROR = 4
    ERROR_INDEX = 5
    ERROR_ADDRESS_LOW = 6
    ERROR_ADDRESS_HIGH = 7
    FLAGS = 8
    IRQ_ENABLE = 9
    IRQ_CAUSE = 10
    CYCLES = 11
    ROWS = 12
    FIRST_READ = 13
    FIRST_ROW = 14
    LAST_ROW = 15
    LAST_RESULT = 16
    BUILD_ID = 17
    VERSION = 18
    LOST = 24
    """idle slots of the array by whom they are lost to, see `Lost`"""
    ENGINES = 32
    """four counters an engine, see `Counter`"""
    CONFIG = 64
    """a register a size of `afternorm.config.Config`, in its order"""


class Counter(IntEnum):
    """Counters of an engine, at ``Register.ENGINES + 4 * engine + counter``."""

    BUSY = 0
    """an instruction is being executed"""
    WAITING = 1
    """the next instruction waits for a semaphore, and the engine is idle"""
    STARVED = 2
    """there is no instruction, and the engine is idle"""
    CONFLICT = 3
    """a request was refused by a memory"""


class Lost(IntEnum):
    """To whom an idle slot of the array is lost, at ``Register.LOST + lost``.

    To an engine, which has its number, or to the way of instructions.  `hdl.scheduler.lost_slots`
    says which slot is whose.
    """

    MATMUL = Engine.MATMUL
    """the matrix engine had work: memory conflicts, or fewer rows than columns to load"""
    EXP = Engine.EXP
    VECTOR = Engine.VECTOR
    REDUCE = Engine.REDUCE
    GATHER = Engine.GATHER
    LOAD = Engine.LOAD
    STORE = Engine.STORE
    FETCH = len(Engine)
    """there was no instruction"""


class Status(IntEnum):
    """What the machine is doing."""

    IDLE = 0
    RUNNING = 1
    DONE = 2
    ERROR = 3
    STOPPED = 4
    """by the host; what was begun is done, and nothing more until a reset"""


class Cause(IntEnum):
    """What interrupts, by bit number."""

    DONE = 0
    ERROR = 1
    STOPPED = 2


REGISTERS = Register.ENGINES + 4 * len(Engine)
"""Registers that tell how a program went lie below."""


def address(region: Region, index: int, tile: int = 0) -> int:
    """The host address of a word."""
    return (region << (TILE_BITS + INDEX_BITS)) | (tile << INDEX_BITS) | index


def float_slot(config: Config) -> int:
    """Bits of a host word that a float takes."""
    return 32 if config.float_width <= 32 else 64


def host_width(config: Config) -> int:
    """Bits of a host word: a power of two, at least 256, that holds every memory's word."""
    widest = max(256, 8 * config.block, config.lanes * float_slot(config))
    return 1 << (widest - 1).bit_length()


def float_word_bytes(config: Config) -> int:
    """Bytes of a word of the vector memory in DRAM."""
    return config.lanes * float_slot(config) // 8
