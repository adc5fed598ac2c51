# SPDX-License-Identifier: Apache-2.0
"""Speed of the simulation: cocotb against a bare loop in C++, with the same Verilog and program.

Both get the same DRAM and start the same programs through the host port: one that loads what
stays in the tiles, then the same step many times.  They take turns, as a machine that others use
too is not equally fast for long: the fastest step of each is what it can do, and the median of the
turns' ratios what cocotb costs.
"""

import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from afternorm.bench.results import BenchResult, Label, Panel, Table
from afternorm.bench.subject import Subject
from afternorm.checkpoints import seeded_model
from afternorm.compiler.buffers import round_up
from afternorm.compiler.model import ALIGNMENT, ModelCompiler
from afternorm.config import Config
from afternorm.device import Closing, RtlDevice
from afternorm.errors import AfternormError
from afternorm.memory_map import Status
from afternorm.progress import progress
from afternorm.simulation import SimulationError, build, simulator_version

PROCESSES, SECONDS = 4, 15.0
"""Both are started so often, and take turns for so long: where a process happens to lie in memory
makes a tenth."""
LAYERS = 12
TOKENS = 32
_COLUMNS = ("driven by", "cycles", "seconds", "cycles/s", "of the loop")


@dataclass(frozen=True)
class Speed:
    """A run of a program: its cycles as the machine counts them, and wall time."""

    cycles: int
    seconds: float

    @property
    def rate(self) -> float:
        """Cycles a second."""
        return self.cycles / self.seconds


@dataclass(frozen=True)
class _Work:
    """What lies in DRAM: a program that prepares, and one that is timed, by byte address."""

    image: bytes
    prepare: int
    step: int


def bench_simulation(subject: Subject, *, threads: int = 1) -> BenchResult:
    """Simulate a small encoder, driven by cocotb (`RtlDevice`) and by a bare loop.

    Parameters
    ----------
    threads
        That the accelerator is simulated on.

    Raises
    ------
    AfternormError
        If it is asked for on the model, or both disagree on the cycles.
    """
    if subject.on == "model":
        raise AfternormError("the simulation benchmark measures a simulation: use --on rtl")
    config = subject.config
    work = _work(config, subject.seed)
    with progress("building the simulation"):
        build(config, threads=threads)
    with progress("building the bare loop"):
        program = build_loop(config, threads=threads)
    with progress("simulating"):
        turns = _turns(config, threads, program, work)
    cocotb, bare = (min(runs, key=lambda run: run.seconds) for runs in zip(*turns, strict=True))
    if bare.cycles != cocotb.cycles:
        raise SimulationError(
            f"the bare loop counted {bare.cycles} cycles and cocotb {cocotb.cycles}"
        )
    on = f"{simulator_version('verilator')} on {threads} thread{'s' * (threads > 1)}"
    result = subject.result("simulation", f"{on}, an encoder's program, the best of {len(turns)}")
    share = statistics.median(loop.seconds / device.seconds for device, loop in turns)
    drivers = (("cocotb", cocotb, share), ("C++ loop", bare, 1.0))
    result.tables.append(
        Table(
            "speed of the simulation",
            _COLUMNS,
            [(name, run.cycles, run.seconds, run.rate, of_loop) for name, run, of_loop in drivers],
        )
    )
    result.notes.append("of the loop: the median of runs one after the other")
    curves: dict[str, list[tuple[Label, float]]] = {
        "speed": [(name, run.rate) for name, run, _ in drivers]
    }
    result.panels.append(Panel(result.title, "", "cycles a second", curves, bars=True))
    return result


def _work(config: Config, seed: int) -> _Work:
    """An encoder's programs and data."""
    model = seeded_model("bert", seed, layers=LAYERS)
    tokens = min(TOKENS, config.rows_max)
    compiler = ModelCompiler(config, model, tokens=tokens)
    rng = np.random.default_rng(seed)
    x = model.embed(rng.integers(model.vocabulary, size=tokens).tolist())
    image = bytearray(compiler.image())
    for address, data in compiler.input(x):
        image[address : address + len(data)] = data
    prepare = compiler.prologue().words
    image[: len(prepare)] = prepare
    step = round_up(len(image), ALIGNMENT)
    image += bytes(step - len(image)) + compiler.encode(tokens).words
    return _Work(bytes(image), 0, step)


def _turns(config: Config, threads: int, program: Path, work: _Work) -> list[tuple[Speed, Speed]]:
    """Runs of the step by the simulation as it is used, each with one by the loop behind it."""
    turns: list[tuple[Speed, Speed]] = []
    for _ in range(PROCESSES):
        with (
            RtlDevice(config, work.image, threads=threads) as device,
            _Loop(config, program, work.image) as loop,
        ):
            device.run(work.prepare)
            loop.run(work.prepare)
            end = time.perf_counter() + SECONDS
            while True:
                turns.append((_device_speed(device, work.step), loop.run(work.step)))
                if time.perf_counter() > end:
                    break
    return turns


def _device_speed(device: RtlDevice, program: int) -> Speed:
    """One run of a program, with starting it and reading its counters."""
    began = time.perf_counter()
    run = device.run(program)
    seconds = time.perf_counter() - began
    if run.status != Status.DONE:
        raise SimulationError(f"the accelerator stopped: {run.error.name.lower()} error")
    return Speed(run.cycles, seconds)


def build_loop(config: Config, *, threads: int = 1) -> Path:
    """Compile the bare loop with the accelerator and its DRAM, or take it from the cache.

    Raises
    ------
    ToolError
        If a tool is missing.
    """
    # RTL is imported where it is needed, as in `afternorm.simulation`.
    from tb.mains import loop_main

    built = build(config, threads=threads, main=loop_main())
    return Path(built.directory) / "obj" / str(built.name)


class _Loop(Closing):
    """The simulation driven by nothing but a loop, one process from here to `close`."""

    def __init__(self, config: Config, program: Path, image: bytes) -> None:
        from tb.system import dram_text

        self._folder = tempfile.TemporaryDirectory(prefix="afternorm-loop-")
        contents = Path(self._folder.name) / "dram.hex"
        contents.write_text(dram_text([(0, image)], config.dram_width))
        self._process = subprocess.Popen(
            [str(program), f"+dram={contents}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def run(self, program: int) -> Speed:
        """Run the program at a byte address of DRAM to its end."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(program, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SimulationError("the bare loop ended before the program did")
        status, cycles, seconds = line.split()
        if int(status) != Status.DONE:
            raise SimulationError(f"the accelerator stopped with status {status} in the bare loop")
        return Speed(int(cycles), float(seconds))
