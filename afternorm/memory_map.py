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

COUNTER_BITS = 32
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
    """Registers, by index; each is 32 bits wide."""

    CONTROL = 0
    """bit 0 starts the program at START, bit 1 resets everything but the memories; both read as
    zero once that is done"""
    START = 1
    """of the first instruction: its address in DRAM in units of `INSTRUCTION_BYTES`"""
    STATUS = 2
    """a `Status`"""
    ERROR = 3
    """bits 2-0: `afternorm.isa.Error`; bits 31-8: number of the instruction, from START on"""
    FLAGS = 4
    """sticky numeric flags, a bit each of `afternorm.isa.Flag`; cleared by start"""
    CYCLES = 5
    """from start to done or error"""
    ROWS = 6
    """rows of operand A that entered the arrays"""
    FIRST_READ = 7
    """cycle of the first operand read of the matmul engine"""
    FIRST_ROW = 8
    """cycle of the first row of A"""
    LAST_ROW = 9
    """cycle of the last row of A"""
    LAST_RESULT = 10
    """cycle of the last accumulator write"""
    ENGINES = 16
    """four counters an engine, see `Counter`"""


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


class Status(IntEnum):
    """What the machine is doing."""

    IDLE = 0
    RUNNING = 1
    DONE = 2
    ERROR = 3


REGISTERS = Register.ENGINES + 4 * len(Engine)


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
