# SPDX-License-Identifier: Apache-2.0
"""The registers: names, offsets, fields, access, reset values, and what they mean.

From this map come the hardware, the documentation, the C header and the drivers.
A register has 32 bits.  Its byte offset on AXI4-Lite is four times its index
(`afternorm.memory_map.Register`), by which the native host port knows it.

Bits that no field covers read as zero and ignore writes; so does a register
that can only be read.  Offsets that no register covers are errors on AXI4-Lite
(SLVERR), and read as zero on the native host port.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from enum import Enum, IntEnum
from importlib.metadata import version

from afternorm.config import Config
from afternorm.isa import DRAM_ADDRESS, INSTRUCTION_BYTES, Engine, Error, Flag
from afternorm.memory_map import (
    PROGRAM_BITS,
    REGISTER_BITS,
    Cause,
    Counter,
    Lost,
    Register,
    Status,
)

REGISTER_BYTES = REGISTER_BITS // 8
"""From one register to the next."""
OFFSET_BITS = 12
"""Bits of a byte offset: the registers take a page of 4 KiB."""


class Access(Enum):
    """What the host can do with a field."""

    RO = "RO"
    """read"""
    RW = "RW"
    """read and write"""
    W1S = "W1S"
    """write one to set; reads as one until what was asked for is done; zeros do nothing"""
    W1C = "W1C"
    """read; write one to clear; zeros do nothing"""


@dataclass(frozen=True, kw_only=True)
class Field:
    """Bits of a register.

    Attributes
    ----------
    name : unique in its register.
    low, width : its lowest bit, and how many it has.
    access : what the host can do.
    doc : what it means, in one line.
    reset : its value after reset; of constants, the value.
    values : what its values mean, where they have names.
    """

    name: str
    low: int
    width: int
    access: Access
    doc: str
    reset: int = 0
    values: type[IntEnum] | None = None

    @property
    def mask(self) -> int:
        """Its bits, where they are in the register."""
        return ((1 << self.width) - 1) << self.low


@dataclass(frozen=True, kw_only=True)
class RegisterEntry:
    """A register.

    Attributes
    ----------
    name : unique, in capitals.
    index : on the native host port.
    doc : what it means, in one line.
    fields : from the lowest bit up.
    """

    name: str
    index: int
    doc: str
    fields: tuple[Field, ...]

    @property
    def offset(self) -> int:
        """In bytes, on AXI4-Lite."""
        return self.index * REGISTER_BYTES

    @property
    def reset(self) -> int:
        """The value after reset."""
        return sum(field.reset << field.low for field in self.fields)

    def mask(self, *access: Access) -> int:
        """The bits with one of these kinds of access."""
        return sum(field.mask for field in self.fields if field.access in access)


def register_map(config: Config) -> tuple[RegisterEntry, ...]:
    """All registers of an accelerator, by offset; the sizes of `config` are the reset values."""
    return (*_machine(), *_counters(), *_constants(config))


def build_id(config: Config) -> int:
    """A number of 32 bits by which host and hardware know that they fit.

    It is a hash of all sizes and of the package's version.
    """
    text = json.dumps([config.to_dict(), version("afternorm")], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:REGISTER_BYTES], "big")


def version_number() -> int:
    """The package's version: major << 16 | minor << 8 | patch."""
    numbers = [int(part) for part in re.findall(r"\d+", version("afternorm"))[:3]]
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    return major << 16 | minor << 8 | patch


def _word(name: str, doc: str, *, reset: int = 0) -> Field:
    """A field that fills a register and can only be read."""
    return Field(name=name, low=0, width=REGISTER_BITS, access=Access.RO, doc=doc, reset=reset)


def _entry(register: Register, doc: str, *fields: Field) -> RegisterEntry:
    return RegisterEntry(name=register.name, index=register, doc=doc, fields=fields)


def _machine() -> list[RegisterEntry]:
    page = (INSTRUCTION_BYTES - 1).bit_length()
    causes = {
        Cause.DONE: "the program is done",
        Cause.ERROR: "the program stopped with an error",
        Cause.STOPPED: "the program was stopped by the host",
    }

    def by_cause(access: Access, doc: str) -> tuple[Field, ...]:
        return tuple(
            Field(name=cause.name.lower(), low=cause, width=1, access=access, doc=f"{doc}{meaning}")
            for cause, meaning in causes.items()
        )

    flags = {
        Flag.ACCUMULATOR_OVERFLOW: "an accumulator saturated",
        Flag.STATISTICS_OVERFLOW: "a sum of a row's statistics saturated",
        Flag.SCALE_OVERFLOW: "a row's scale saturated",
        Flag.ZERO_SUM: "a softmax row summed to zero, or a norm had no variance: its scale is 0",
        Flag.EXP_RANGE: "a score lay outside the exponent's range and was saturated",
        Flag.VECTOR_OVERFLOW: "a result of the vector unit saturated",
    }
    return [
        _entry(
            Register.CONTROL,
            "what the machine is to do",
            Field(
                name="start",
                low=0,
                width=1,
                access=Access.W1S,
                doc="run the program at PROGRAM; ignored while one runs, and after an error or "
                "stop until a reset",
            ),
            Field(
                name="reset",
                low=1,
                width=1,
                access=Access.W1S,
                doc="reset everything but memories, PROGRAM and IRQ_ENABLE, once all that is "
                "under way on the bus has come",
            ),
            Field(
                name="stop",
                low=2,
                width=1,
                access=Access.W1S,
                doc="begin no further instruction; ignored unless a program runs",
            ),
        ),
        _entry(
            Register.PROGRAM_LOW,
            f"byte address of the program, a multiple of {INSTRUCTION_BYTES}: low bits",
            Field(
                name="address",
                low=page,
                width=REGISTER_BITS - page,
                access=Access.RW,
                doc=f"address / {INSTRUCTION_BYTES}, low bits",
            ),
        ),
        _entry(
            Register.PROGRAM_HIGH,
            "byte address of the program: high bits",
            Field(
                name="address",
                low=0,
                width=PROGRAM_BITS + page - REGISTER_BITS,
                access=Access.RW,
                doc="address, high bits",
            ),
        ),
        _entry(
            Register.STATUS,
            "what the machine is doing",
            Field(
                name="state",
                low=0,
                width=3,
                access=Access.RO,
                doc="how it stands with the program",
                values=Status,
            ),
        ),
        _entry(
            Register.ERROR,
            "why the program stopped",
            Field(
                name="code",
                low=0,
                width=3,
                access=Access.RO,
                doc="0 while there is no error",
                values=Error,
            ),
        ),
        _entry(
            Register.ERROR_INDEX,
            "where the program stopped",
            Field(
                name="index",
                low=0,
                width=24,
                access=Access.RO,
                doc="of the illegal instruction, 0 for the first; after a bus error or a semaphore "
                "overflow, how many were dispatched by then",
            ),
        ),
        _entry(
            Register.ERROR_ADDRESS_LOW,
            "byte address that a bus error answers to: low bits",
            _word("address", "of the beat that was read, or of the burst that was written"),
        ),
        _entry(
            Register.ERROR_ADDRESS_HIGH,
            "byte address that a bus error answers to: high bits",
            Field(
                name="address",
                low=0,
                width=DRAM_ADDRESS - REGISTER_BITS,
                access=Access.RO,
                doc="address, high bits",
            ),
        ),
        _entry(
            Register.FLAGS,
            "sticky numeric flags, cleared by a start; none of them stops the machine",
            *(
                Field(name=flag.name.lower(), low=flag, width=1, access=Access.RO, doc=meaning)
                for flag, meaning in flags.items()
            ),
        ),
        _entry(
            Register.IRQ_ENABLE,
            "which causes interrupt",
            *by_cause(Access.RW, "interrupt when "),
        ),
        _entry(
            Register.IRQ_CAUSE,
            "what happened since it was cleared, enabled or not; a reset clears it as well",
            *by_cause(Access.W1C, ""),
        ),
    ]


def _counters() -> list[RegisterEntry]:
    entries = [
        _entry(register, doc, _word("cycles" if "cycle" in doc else "rows", doc))
        for register, doc in (
            (Register.CYCLES, "cycles from start to the end of the program"),
            (Register.ROWS, "rows of operand A that entered the arrays"),
            (Register.FIRST_READ, "cycle of the first operand read of the matmul engine"),
            (Register.FIRST_ROW, "cycle of the first row of A"),
            (Register.LAST_ROW, "cycle of the last row of A"),
            (Register.LAST_RESULT, "cycle of the last accumulator write"),
        )
    ]
    meanings = {
        Counter.BUSY: "an instruction was being executed",
        Counter.WAITING: "the next instruction waited for a semaphore, and the engine was idle",
        Counter.STARVED: "there was no instruction, and the engine was idle",
        Counter.CONFLICT: "a request was refused by a memory",
    }
    for lost in Lost:
        name = lost.name.lower()
        causes = {
            Lost.MATMUL: "the matmul engine had an instruction",
            Lost.FETCH: "there was no instruction for the matmul engine",
        }
        cause = causes.get(lost, f"the matmul engine waited for the {name} engine")
        meaning = f"cycles without a row of A, between the first and the last, in which {cause}"
        entries.append(
            RegisterEntry(
                name=f"LOST_{lost.name}",
                index=Register.LOST + lost,
                doc=meaning,
                fields=(_word("slots", meaning),),
            )
        )
    for engine in Engine:
        for counter, meaning in meanings.items():
            name = engine.name.lower()
            entries.append(
                RegisterEntry(
                    name=f"{engine.name}_{counter.name}",
                    index=Register.ENGINES + len(Counter) * engine + counter,
                    doc=f"{name} engine: cycles in which {meaning}",
                    fields=(_word("cycles", f"cycles in which {meaning}"),),
                )
            )
    return entries


def _constants(config: Config) -> list[RegisterEntry]:
    first = Register.CONFIG
    return [
        _entry(
            Register.BUILD_ID,
            "hash of all sizes and of the version",
            _word("id", "equal to what the driver was made for", reset=build_id(config)),
        ),
        _entry(
            Register.VERSION,
            "version of the generator",
            *(
                Field(
                    name=name,
                    low=low,
                    width=8 if low < 16 else 16,
                    access=Access.RO,
                    doc=f"{name} version",
                    reset=version_number() >> low & (0xFF if low < 16 else 0xFFFF),
                )
                for name, low in (("patch", 0), ("minor", 8), ("major", 16))
            ),
        ),
        *(
            RegisterEntry(
                name=f"CONFIG_{name.upper()}",
                index=first + number,
                doc=f"the size `{name}` of the configuration",
                fields=(_word("value", f"`{name}`", reset=value),),
            )
            for number, (name, value) in enumerate(config.to_dict().items())
        ),
    ]
