# SPDX-License-Identifier: Apache-2.0
"""Speed of the simulation: cocotb against a bare loop in C++, with the same Verilog and program.

Both get the same DRAM and start the same programs through the host port: one that loads what
stays in the tiles, then the same step several times, of which the fastest counts.
"""

import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from afternorm.bench.results import BenchResult, Label, Panel, Table
from afternorm.bench.subject import Subject
from afternorm.checkpoints import seeded_model
from afternorm.compiler.buffers import round_up
from afternorm.compiler.model import ALIGNMENT, ModelCompiler
from afternorm.config import Config
from afternorm.device import RtlDevice
from afternorm.errors import AfternormError, ToolError
from afternorm.memory_map import Status
from afternorm.progress import progress
from afternorm.simulation import SimulationError, simulator_version

REPEATS = 5
LAYERS = 12
TOKENS = 32
_COLUMNS = ("driven by", "cycles", "seconds", "cycles/s", "of the loop")


@dataclass(frozen=True)
class Speed:
    """The fastest run of a program: its cycles as the machine counts them, and wall time."""

    cycles: int
    seconds: float


@dataclass(frozen=True)
class _Work:
    """What lies in DRAM: a program that prepares, and one that is timed, by byte address."""

    image: bytes
    prepare: int
    step: int


def bench_simulation(subject: Subject) -> BenchResult:
    """Simulate a small encoder, driven by cocotb (`RtlDevice`) and by a bare loop.

    Raises
    ------
    AfternormError
        If it is asked for on the model, or both disagree on the cycles.
    """
    if subject.on == "model":
        raise AfternormError("the simulation benchmark measures a simulation: use --on rtl")
    config = subject.config
    work = _work(config, subject.seed)
    subject.built(config)
    with progress("building the bare loop"):
        program = build_loop(config)
    with progress("simulating"):
        runs = {
            "cocotb": cocotb_speed(config, work.image, work.prepare, work.step),
            "C++ loop": loop_speed(config, program, work.image, work.prepare, work.step),
        }
    bare, cocotb = runs["C++ loop"], runs["cocotb"]
    if bare.cycles != cocotb.cycles:
        raise SimulationError(
            f"the bare loop counted {bare.cycles} cycles and cocotb {cocotb.cycles}"
        )
    result = subject.result(
        "simulation", f"{simulator_version('verilator')}, an encoder's program, best of {REPEATS}"
    )
    rates = {name: run.cycles / run.seconds for name, run in runs.items()}
    result.tables.append(
        Table(
            "speed of the simulation",
            _COLUMNS,
            [
                (name, run.cycles, run.seconds, rates[name], rates[name] / rates["C++ loop"])
                for name, run in runs.items()
            ],
        )
    )
    curves: dict[str, list[tuple[Label, float]]] = {"speed": list(rates.items())}
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


def cocotb_speed(config: Config, image: bytes, prepare: int, step: int) -> Speed:
    """The simulation as the project uses it."""
    runs = []
    with RtlDevice(config, image) as device:
        device.run(prepare)
        for _ in range(REPEATS):
            began = time.perf_counter()
            run = device.run(step)
            runs.append(Speed(run.cycles, time.perf_counter() - began))
            if run.status != Status.DONE:
                raise SimulationError(f"the accelerator stopped: {run.error.name.lower()} error")
    return min(runs, key=lambda run: run.seconds)


def build_loop(config: Config) -> Path:
    """Compile the bare loop with the accelerator and its DRAM, or take it from the cache.

    Raises
    ------
    ToolError
        If a tool is missing.
    """
    # RTL is imported where it is needed, as in `afternorm.simulation`.
    from tb.loop import loop_source
    from tb.runner import build_verilog
    from tb.system import system_verilog

    name = "afternorm"
    built = build_verilog(system_verilog(config, name=name), name=name, main=loop_source())
    return built.directory / "obj" / name


def loop_speed(config: Config, program: Path, image: bytes, prepare: int, step: int) -> Speed:
    """The simulation driven by nothing but a loop."""
    from tb.system import dram_text

    with tempfile.TemporaryDirectory(prefix="afternorm-loop-") as folder:
        contents = Path(folder) / "dram.hex"
        contents.write_text(dram_text([(0, image)], config.dram_width))
        command = [str(program), f"+dram={contents}", str(prepare), *[str(step)] * REPEATS]
        lines = _output(command).splitlines()
    runs = [_speed(line) for line in lines[1:]]
    if len(runs) != REPEATS:
        raise ToolError(f"{program.name} printed {len(lines)} lines instead of {REPEATS + 1}")
    return min(runs, key=lambda run: run.seconds)


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SimulationError(f"the bare loop failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _speed(line: str) -> Speed:
    """One line of the loop's output: status, cycles, seconds."""
    status, cycles, seconds = line.split()
    if int(status) != Status.DONE:
        raise SimulationError(f"the accelerator stopped with status {status} in the bare loop")
    return Speed(int(cycles), float(seconds))
