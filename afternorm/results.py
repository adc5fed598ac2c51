# SPDX-License-Identifier: Apache-2.0
"""What a simulation found out, as `afternorm.layer_simulation` returns it."""

from dataclasses import dataclass
from pathlib import Path


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
class ScheduleResult:
    """One schedule of a layer.

    Attributes
    ----------
    schedule : `serial`, `interleaved` or `deferred`.
    instructions : length of the program.
    cycles : all, from start to the end of the program.
    ideal : array cycles of the padded products.
    idle_slots : cycles between the first and last row of A in which none entered an array.
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
    idle_slots: int
    words: int
    mismatches: int
    error: float
    flags: list[str]
    engines: dict[str, EngineCycles]
    seconds: float


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
