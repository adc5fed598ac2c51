# SPDX-License-Identifier: Apache-2.0
"""Layers through the buses: weights, input and output in an `AxiRam` with random pauses.

Every byte of the output `==` the golden machine's.
"""

import pickle
import re
from pathlib import Path

import pytest

from afternorm.checkpoints import Arch, seeded_model
from afternorm.compiler.layer_weights import Schedule
from afternorm.compiler.model import ModelCompiler
from afternorm.config import preset
from afternorm.inference import Inference
from hdl.axi.wrapper import AxiAccelerator
from tb.emission import emitted
from tb.recording import Recorder
from tb.runner import BenchError, build_verilog

TINY = preset("tiny")
TEXT = [3, 17, 5, 40, 8, 22, 9, 30, 1, 12, 44]
PREFILL = 9
MAX_CYCLES = 2_000_000
"""Of a program, pauses and all."""


def recorded(arch: Arch, schedule: Schedule, seed: int, **sizes: int) -> Recorder:
    """A text through a seeded model on the golden machine: prefill and steps, or whole texts."""
    model = seeded_model(arch, seed, **sizes)
    compiler = ModelCompiler(TINY, model, schedule, tokens=16, chunk=8)
    device = Recorder(TINY, compiler.image())
    engine = Inference(compiler, device)
    if compiler.decodes:
        engine.feed(TEXT[:PREFILL])
        engine.feed(TEXT[PREFILL:])
    else:
        engine.features(TEXT[:PREFILL])
        engine.features(TEXT)
    return device


def replay(
    device: Recorder, seed: int, folder: Path, *, stall: float = 0.2, corrupt: bool = False
) -> int:
    """Do the same on the RTL behind its buses, and print what it took; the beats of data."""
    config = device.machine.config
    recording = folder / "recording.pickle"
    recording.write_bytes(pickle.dumps(device.recording))
    verilog = emitted(AxiAccelerator, name="afternorm_axi", config=config)
    parameters = {
        "config": config.to_dict(),
        "stall": stall,
        "recording": str(recording),
        "max_cycles": MAX_CYCLES,
        "corrupt": corrupt,
    }
    built = build_verilog(verilog, name="afternorm_axi")
    built.run("tb.bench_axi_models", parameters=parameters, seed=seed, workdir=folder)
    log = (folder / "bench.log").read_text(encoding="utf-8")
    figures = re.search(r"\d+ programs, .* (\d+) beats read, (\d+) written.*", log)
    assert figures is not None
    print(figures[0])
    return int(figures[1]) + int(figures[2])


@pytest.mark.parametrize(
    "arch", ["llama", *(pytest.param(arch, marks=pytest.mark.slow) for arch in ("bert", "gpt2"))]
)
def test_deferred(arch: Arch, seed: int, tmp_path: Path) -> None:
    replay(recorded(arch, "deferred", seed), seed, tmp_path)


@pytest.mark.slow
def test_serial(seed: int, tmp_path: Path) -> None:
    replay(recorded("llama", "serial", seed), seed, tmp_path)


def test_weights_that_stream(seed: int, tmp_path: Path) -> None:
    """A classifier larger than the scratchpad, from memory without pauses."""
    device = recorded("llama", "deferred", seed, context=3000, vocabulary=2500)
    replay(device, seed, tmp_path, stall=0.0)


@pytest.mark.slow
def test_traffic_of_a_layer(seed: int, tmp_path: Path) -> None:
    """A layer of MiniLM's sizes moves little more than its data, once: its program is the rest."""
    config = preset("small")
    sizes = {"layers": 1, "dim": 384, "heads": 12, "head_dim": 32, "hidden": 1536}
    compiler = ModelCompiler(config, seeded_model("bert", seed, **sizes), tokens=9)
    device = Recorder(config, compiler.image())
    engine = Inference(compiler, device)
    engine.features(TEXT[:PREFILL])
    beats = replay(device, seed, tmp_path, stall=0.0)
    programs = [engine.prologue.program, *(one.program for one in engine.done)]
    needed = sum(program.needed for program in programs)
    moved = beats * config.dram_width // 8
    print(f"{moved:,} bytes in all at the port, {moved / needed:.3f} of {needed:,} bytes of data")
    assert sum(one.program.moved for one in engine.done) <= moved <= 1.05 * needed


def test_bench_sees_one_wrong_bit(seed: int, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="differ"):
        replay(recorded("bert", "deferred", seed), seed, tmp_path, stall=0.0, corrupt=True)
