# SPDX-License-Identifier: Apache-2.0
"""A driver in Python, over anything that reads and writes registers.

Programs and data lie in the memory that the accelerator's AXI4 master reaches; the
caller puts them there.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from afternorm.config import Config
from afternorm.errors import AfternormError
from afternorm.isa import INSTRUCTION_BYTES, Engine, Error, Flag
from afternorm.memory_map import REGISTER_BITS, Cause, Counter, Lost, Register, Status
from afternorm.register_map import build_id, register_map


class DeviceError(AfternormError):
    """The accelerator is not the one that was asked for, does not answer, or cannot start."""


class ProgramError(DeviceError):
    """A program stopped with an error.

    Attributes
    ----------
    stop : why and where.
    """

    def __init__(self, stop: "Stop") -> None:
        super().__init__(str(stop))
        self.stop = stop


class Bus(Protocol):
    """A way to the registers, by byte offset."""

    def read32(self, offset: int) -> int:
        """The register at this offset."""

    def write32(self, offset: int, value: int) -> None:
        """Write the register at this offset."""


@dataclass(frozen=True)
class Stop:
    """How a program stopped.

    Attributes
    ----------
    code : why.
    index : of the instruction, from 0; see ERROR_INDEX.
    address : that a bus error answered to.
    """

    code: Error
    index: int
    address: int

    def __str__(self) -> str:
        where = f"at address {self.address:#x}, " if self.code == Error.BUS else ""
        return f"the program stopped: {self.code.name}, {where}instruction {self.index}"


@dataclass(frozen=True)
class Counters:
    """What the counters say of the last program.

    Attributes
    ----------
    machine : `Register.CYCLES` to `Register.LAST_RESULT`, by name in lower case.
    lost : idle slots of the array by whom they are lost to.
    engines : cycles by engine and counter.
    """

    machine: dict[str, int]
    lost: dict[Lost, int]
    engines: dict[Engine, dict[Counter, int]]


class Driver:
    """Starts programs on an accelerator and tells how they went.

    Parameters
    ----------
    bus : the way to its registers.
    config : its sizes.

    Raises
    ------
    DeviceError
        If the accelerator has other sizes, or comes from another version of the package.
    """

    def __init__(self, bus: Bus, config: Config) -> None:
        self.bus = bus
        self.config = config
        self._registers = {register.name: register for register in register_map(config)}
        found, expected = self.read("BUILD_ID"), build_id(config)
        if found != expected:
            raise DeviceError(
                f"the accelerator's build id is {found:#010x}, not {expected:#010x}: it has other "
                f"sizes or comes from another version of afternorm"
                f"{self._differences()}; take the configuration that it was generated from"
            )

    def _differences(self) -> str:
        """The sizes that differ, as far as the registers tell."""
        differ = [
            f"{name}={found}, not {value}"
            for name, value in self.config.to_dict().items()
            if (found := self.read(f"CONFIG_{name.upper()}")) != value
        ]
        return f" ({', '.join(differ)})" if differ else ""

    def read(self, register: str, field: str | None = None) -> int:
        """A register's value, or a field's."""
        entry = self._registers[register]
        value = self.bus.read32(entry.offset)
        if field is None:
            return value
        (found,) = (each for each in entry.fields if each.name == field)
        return (value & found.mask) >> found.low

    def write(self, register: str, **fields: int) -> None:
        """Write a register: these fields, and zeros in the others."""
        entry = self._registers[register]
        places = {each.name: each for each in entry.fields}
        self.bus.write32(
            entry.offset, sum(value << places[name].low for name, value in fields.items())
        )

    def start(self, program: int) -> None:
        """Start the program at this byte address of the accelerator's memory.

        It is read ahead of its turn: the `fetch_depth` instructions behind its END must be memory,
        too, whatever they hold.

        Raises
        ------
        DeviceError
            If the address is impossible, a program runs, or a reset is needed.
        """
        high = program >> REGISTER_BITS
        (field,) = self._registers["PROGRAM_HIGH"].fields
        if program % INSTRUCTION_BYTES or program < 0 or high >> field.width:
            raise DeviceError(
                f"a program's address must be a multiple of {INSTRUCTION_BYTES} below "
                f"{1 << (REGISTER_BITS + field.width):#x}, not {program:#x}"
            )
        status = self.status()
        if status == Status.RUNNING:
            raise DeviceError("a program runs: wait for its end, or stop it")
        if status in (Status.ERROR, Status.STOPPED):
            raise DeviceError(f"the status is {status.name}: reset the accelerator first")
        self.write(
            "PROGRAM_LOW", address=(program & ((1 << REGISTER_BITS) - 1)) // INSTRUCTION_BYTES
        )
        self.write("PROGRAM_HIGH", address=high)
        self.write("CONTROL", start=1)

    def wait(self, timeout: float | None = None, poll: Callable[[], None] | None = None) -> Status:
        """Wait until no program runs; DONE, STOPPED, or IDLE if none was started.

        Parameters
        ----------
        timeout
            Seconds; no limit if None.
        poll
            Called between two looks at the status, to sleep or to wait for an interrupt.

        Raises
        ------
        ProgramError
            If the program stopped with an error.
        DeviceError
            If it still runs after `timeout`.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while (status := self.status()) == Status.RUNNING:
            if end is not None and time.monotonic() > end:
                raise DeviceError(f"the program still runs after {timeout:g} s")
            if poll is not None:
                poll()
        if status == Status.ERROR:
            raise ProgramError(self.error())
        return status

    def stop(self) -> None:
        """Begin no further instruction; `wait` returns when what was begun is done."""
        self.write("CONTROL", stop=1)

    def soft_reset(self, timeout: float | None = 1.0) -> None:
        """Reset everything but the memories, PROGRAM and IRQ_ENABLE, and wait for it.

        Raises
        ------
        DeviceError
            If it takes longer than `timeout` seconds, because the bus does not answer.
        """
        self.write("CONTROL", reset=1)
        end = None if timeout is None else time.monotonic() + timeout
        while self.read("CONTROL", "reset"):
            if end is not None and time.monotonic() > end:
                raise DeviceError(
                    f"the reset is not done after {timeout:g} s: the bus owes answers"
                )

    def status(self) -> Status:
        """What the machine is doing; a start that waits for a reset's end counts as running."""
        if self.read("CONTROL", "start"):
            return Status.RUNNING
        return Status(self.read("STATUS", "state"))

    def error(self) -> Stop:
        """Why and where the program stopped; the code is NONE if it did not."""
        address = (self.read("ERROR_ADDRESS_HIGH", "address") << REGISTER_BITS) | self.read(
            "ERROR_ADDRESS_LOW", "address"
        )
        return Stop(Error(self.read("ERROR", "code")), self.read("ERROR_INDEX", "index"), address)

    def flags(self) -> set[Flag]:
        """The sticky numeric flags of the last program."""
        value = self.read("FLAGS")
        return {flag for flag in Flag if value >> flag & 1}

    def counters(self) -> Counters:
        """The counters of the last program."""
        return Counters(
            {
                register.name.lower(): self.read(register.name)
                for register in Register
                if Register.CYCLES <= register <= Register.LAST_RESULT
            },
            {lost: self.read(f"LOST_{lost.name}") for lost in Lost},
            {
                engine: {counter: self.read(f"{engine.name}_{counter.name}") for counter in Counter}
                for engine in Engine
            },
        )

    def enable_interrupts(self, *causes: Cause) -> None:
        """Only these causes interrupt from now on."""
        self.write("IRQ_ENABLE", **{cause.name.lower(): 1 for cause in causes})

    def take_interrupts(self) -> set[Cause]:
        """The causes that were pending; they are cleared."""
        value = self.read("IRQ_CAUSE")
        found = {cause for cause in Cause if value >> cause & 1}
        self.write("IRQ_CAUSE", **{cause.name.lower(): 1 for cause in found})
        return found
