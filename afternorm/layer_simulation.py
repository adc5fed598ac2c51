# SPDX-License-Identifier: Apache-2.0
"""The `simulate` command: a layer on the RTL under several schedules, beside the golden machine."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from afternorm.checkpoints import Arch, Floats, Layer, seeded_input, seeded_layer
from afternorm.checkpoints.llama2c import load_checkpoint
from afternorm.compiler.layer import compile_layer
from afternorm.compiler.layer_weights import Schedule
from afternorm.config import Config
from afternorm.errors import CheckpointError
from afternorm.isa import Engine
from afternorm.memory_map import Status
from afternorm.progress import progress
from afternorm.results import LayerResult, ScheduleResult
from afternorm.simulation import (
    SimulationError,
    Simulator,
    build,
    compare,
    run_golden,
    run_rtl,
    simulator_version,
)

_BEGIN = 1
"""The token that starts a text."""


def simulate_layer(
    config: Config,
    *,
    checkpoint: Path | None,
    layer: int,
    arch: Arch,
    tokens: int,
    schedules: Sequence[Schedule],
    seed: int,
    simulator: Simulator,
    threads: int,
    waves: Path | None,
) -> LayerResult:
    """Run one layer under each of the schedules.

    Parameters
    ----------
    checkpoint
        A llama2.c checkpoint; its layer number `layer` is run on the text that the model
        itself continues, `tokens` long.  None: a layer of the kind `arch` with weights and
        input from `seed`.
    threads
        That the accelerator is simulated on.
    waves
        A folder for traces, if wanted.

    Raises
    ------
    AfternormError
        If the checkpoint cannot be used, the layer does not fit, a tool is missing or the
        simulation fails.
    """
    what, chosen, x = _input(checkpoint, layer, arch, tokens, seed)
    # Compiled first: what does not fit is said before anything is built.
    jobs = {schedule: compile_layer(config, chosen, x, schedule) for schedule in schedules}
    expected = chosen.reference(x).output

    began = time.perf_counter()
    with progress(f"building the simulation ({simulator})"):
        built = build(config, simulator=simulator, waves=waves is not None, threads=threads)
    build_seconds = time.perf_counter() - began

    results, traces = [], []
    with progress("simulating", total=len(jobs)) as advance:
        for number, (schedule, job) in enumerate(jobs.items()):
            workdir = None if waves is None else waves / schedule
            machine = run_golden(job)
            outcome = run_rtl(job, built, workdir=workdir)
            if outcome.status != Status.DONE:
                raise SimulationError(
                    f"the accelerator stopped at instruction {outcome.error_index} of the "
                    f"{schedule} schedule: {outcome.error.name.lower()} error"
                )
            comparison = compare(job, outcome, machine)
            output = job.results(machine)["output"]
            results.append(
                ScheduleResult(
                    schedule=schedule,
                    instructions=len(job.program),
                    cycles=outcome.cycles,
                    ideal=job.info["ideal"],
                    lost=outcome.lost,
                    words=comparison.words,
                    mismatches=comparison.mismatches,
                    error=_relative_rms(output, expected),
                    flags=outcome.flag_names(),
                    engines={e.name.lower(): outcome.engine(e) for e in Engine},
                    seconds=outcome.seconds,
                )
            )
            if workdir is not None:
                traces += sorted(workdir.glob("*.vcd"))
            advance(number + 1)
    return LayerResult(
        layer=what,
        parameters=config.to_dict(),
        tokens=tokens,
        seed=seed,
        simulator=simulator_version(simulator),
        build_seconds=build_seconds,
        schedules=results,
        waves=traces,
    )


def _input(
    checkpoint: Path | None, layer: int, arch: Arch, tokens: int, seed: int
) -> tuple[str, Layer, Floats]:
    """What is run, in words; the layer; and its input."""
    if checkpoint is None:
        kv_heads = 2 if arch == "llama" else None
        chosen = seeded_layer(arch, seed, kv_heads=kv_heads)
        return f"{arch} layer, seed {seed}", chosen, seeded_input(chosen, seed, tokens)
    model = load_checkpoint(checkpoint)
    if layer >= len(model.layers):
        raise CheckpointError(
            f"{checkpoint} has {len(model.layers)} layers, 0 to {len(model.layers) - 1}: "
            f"there is no layer {layer}"
        )
    if tokens > model.context:
        raise CheckpointError(
            f"{checkpoint} has room for {model.context} tokens in its context, not {tokens}"
        )
    x = model.layer_input(model.greedy([_BEGIN], tokens), layer)
    return f"{checkpoint.name}, layer {layer}", model.layers[layer], x


def _relative_rms(got: Floats, expected: Floats) -> float:
    return float(np.sqrt(((got - expected) ** 2).sum() / (expected**2).sum()))
