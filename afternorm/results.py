# SPDX-License-Identifier: Apache-2.0
"""What a simulation found out."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afternorm.isa import Engine, Error, Flag
from afternorm.memory_map import Counter, Lost, Register, Status


@dataclass(frozen=True, kw_only=True)
class EngineCycles:
    """An engine's performance counters, in cycles, summed over the tiles where there are several.

    Attributes
    ----------
    busy : an instruction was being executed.
    waiting : the next instruction waited for a semaphore.
    starved : the queue was empty.
    stalled : a memory conflict stopped it.
    """

    busy: int
    waiting: int
    starved: int
    stalled: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a program ended, and what it cost.

    Attributes
    ----------
    status, error, error_index : how it ended; the index counts instructions from the first.
    flags : the sticky flags, a bit each.
    registers : all registers, by index (`afternorm.memory_map.Register`).
    """

    status: Status
    error: Error
    error_index: int
    flags: int
    registers: NDArray[np.uint32]

    @property
    def cycles(self) -> int:
        """From start to the end of the program."""
        return int(self.registers[Register.CYCLES])

    @property
    def span(self) -> int:
        """Cycles from the first operand read to the last accumulator write, both included."""
        first, last = (self.registers[r] for r in (Register.FIRST_READ, Register.LAST_RESULT))
        return int(last) - int(first) + 1

    @property
    def idle_slots(self) -> int:
        """Cycles between the first and the last row of A in which none entered the array."""
        first, last = (self.registers[r] for r in (Register.FIRST_ROW, Register.LAST_ROW))
        rows = int(self.registers[Register.ROWS])
        return int(last) - int(first) + 1 - rows if rows else 0

    @property
    def lost(self) -> dict[str, int]:
        """The idle slots by whom they are lost to; see `afternorm.memory_map.Lost`."""
        return {lost.name.lower(): int(self.registers[Register.LOST + lost]) for lost in Lost}

    def engine(self, engine: Engine) -> EngineCycles:
        """An engine's counters."""
        base = Register.ENGINES + 4 * engine
        return EngineCycles(
            busy=int(self.registers[base + Counter.BUSY]),
            waiting=int(self.registers[base + Counter.WAITING]),
            starved=int(self.registers[base + Counter.STARVED]),
            stalled=int(self.registers[base + Counter.CONFLICT]),
        )

    def flag_names(self) -> list[str]:
        """The sticky flags that are set."""
        return [flag.name.lower() for flag in Flag if self.flags >> flag & 1]


def run_fields(registers: NDArray[np.uint32]) -> dict[str, Any]:
    """The fields of a `Run`, from the registers."""
    return {
        "status": Status(int(registers[Register.STATUS])),
        "error": Error(int(registers[Register.ERROR])),
        "error_index": int(registers[Register.ERROR_INDEX]),
        "flags": int(registers[Register.FLAGS]),
        "registers": registers,
    }


@dataclass(frozen=True, kw_only=True)
class ScheduleResult:
    """One schedule of a layer.

    Attributes
    ----------
    schedule : `serial`, `interleaved` or `deferred`.
    instructions : length of the program.
    cycles : all, from start to the end of the program.
    ideal : array cycles of the padded products.
    lost : cycles between the first and last row of A in which none entered an array, by cause.
    words : output words compared with the golden machine.
    mismatches : how many of them differ.
    error : relative RMS error of the layer's output against float64.
    flags : names of the sticky flags that were raised.
    engines : counters by engine.
    seconds : wall time of the simulation.
    """

    schedule: str
    instructions: int
    cycles: int
    ideal: int
    lost: dict[str, int]
    words: int
    mismatches: int
    error: float
    flags: list[str]
    engines: dict[str, EngineCycles]
    seconds: float

    @property
    def idle_slots(self) -> int:
        """All that were lost."""
        return sum(self.lost.values())


def lost_in_all(some: Iterable[dict[str, int]]) -> dict[str, int]:
    """Idle slots of several programs by whom they are lost to."""
    total = {lost.name.lower(): 0 for lost in Lost}
    for one in some:
        for who, slots in one.items():
            total[who] += slots
    return total


def lost_to(lost: dict[str, int]) -> str:
    """Idle slots in words, the largest cause first: `idle slots 123: exp 100, load 23`."""
    some = sorted(((slots, who) for who, slots in lost.items() if slots), reverse=True)
    causes = ", ".join(f"{who} {slots:,}" for slots, who in some)
    return f"idle slots {sum(lost.values()):,}" + (f": {causes}" if causes else "")


@dataclass(frozen=True, kw_only=True)
class LayerResult:
    """A layer under one or more schedules.

    Attributes
    ----------
    layer : what was run, in words.
    parameters : the accelerator's sizes.
    tokens : rows.
    seed : of the weights and of the input, where they are not from a checkpoint.
    simulator : with its version.
    build_seconds : time to compile the simulation; near 0 when it was cached.
    schedules : a result each.
    waves : traces, if asked for.
    """

    layer: str
    parameters: dict[str, int]
    tokens: int
    seed: int
    simulator: str
    build_seconds: float
    schedules: list[ScheduleResult]
    waves: list[Path]

    @property
    def exact(self) -> bool:
        """Whether every output word of every schedule was right."""
        return all(result.mismatches == 0 for result in self.schedules)


@dataclass(frozen=True, kw_only=True)
class ProgramResult:
    """One program of a model.

    Attributes
    ----------
    position, rows : the tokens that it computed.
    instructions : its length.
    cycles : from start to end; 0 on the golden machine, which has no time.
    predicted : what the cycle model says of them.
    ideal : array cycles of its padded products.
    macs : multiplications that it needs.
    dram_bytes, dram_needed : bytes of DRAM moved, instructions included; bytes of its data that
        are read or written at all, each of them once.
    engines : busy cycles by engine.
    lost : idle slots by whom they are lost to; on the golden machine what the model says.
    """

    position: int
    rows: int
    instructions: int
    cycles: int
    predicted: int
    ideal: int
    macs: int
    dram_bytes: int
    dram_needed: int
    engines: dict[str, int]
    lost: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class TextResult:
    """A text and what the model made of it.

    Attributes
    ----------
    ids : all tokens, the new ones too.
    text : their text.
    embedding : of an encoder.
    """

    ids: list[int]
    text: str
    embedding: list[float] | None


@dataclass(frozen=True, kw_only=True)
class ModelRun:
    """A model under one schedule.

    Attributes
    ----------
    schedule : `serial`, `interleaved`, `deferred` or `none`.
    resident, cached : whether constants, and caches, stay in the tiles.
    regions : bytes of DRAM by use.
    prologue : the program that loads what stays.
    programs : all others, in order.
    texts : what came out.
    words : output words compared with the golden machine, flags included.
    mismatches : how many of them differ.
    flags : names of the sticky flags that were raised.
    build_seconds, seconds : wall time to build the simulation, and to run everything.
    """

    schedule: str
    resident: bool
    cached: bool
    regions: dict[str, int]
    prologue: ProgramResult
    programs: list[ProgramResult]
    texts: list[TextResult]
    words: int
    mismatches: int
    flags: list[str]
    build_seconds: float
    seconds: float

    @property
    def steps(self) -> list[ProgramResult]:
        """The programs of a single token."""
        return [program for program in self.programs if program.rows == 1]


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """A model on one accelerator.

    Attributes
    ----------
    model : its name.
    backend : `rtl`, `uart`, `golden` or `float`.
    clock : MHz that tokens a second are counted with.
    texts : what came out under the first schedule.
    runs : one a schedule; none in float64.
    """

    model: str
    backend: str
    clock: float
    texts: list[TextResult]
    runs: list[ModelRun]

    @property
    def exact(self) -> bool:
        """Whether the RTL agreed with the golden machine in every word."""
        return not any(run.mismatches for run in self.runs)
