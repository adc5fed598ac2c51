# SPDX-License-Identifier: Apache-2.0
"""What benchmarks measure: one accelerator's RTL, or the model of its time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from afternorm.bench.results import BenchResult, Label, Measurement, On
from afternorm.compiler.layer_weights import Schedule
from afternorm.compiler.model import ModelProgram
from afternorm.config import Config
from afternorm.cycles import Prediction, predict
from afternorm.errors import AfternormError, CapacityError, ConfigError
from afternorm.job import Job
from afternorm.memory_map import Status
from afternorm.progress import progress
from afternorm.simulation import SimulationError, build, compare, run_golden, run_rtl

RTL_CYCLES = 100_000
"""Benchmarks simulate no single program that takes the array longer: some seconds."""
_MEMORIES = ("scratchpad_depth", "vector_depth", "scale_depth", "stat_depth")

Make = Callable[[Config, Schedule], Job]


@dataclass(frozen=True)
class Case:
    """Work that is measured under some schedules.

    Attributes
    ----------
    labels : what it is, by column of the table.
    make : compiles it.
    schedules : under which it is measured, all with the same memories.
    changes : sizes of the accelerator that differ.
    """

    labels: dict[str, Label]
    make: Make
    schedules: tuple[Schedule, ...] = ("none",)
    changes: Mapping[str, int] = field(default_factory=dict)


def enlarged(config: Config) -> Config | None:
    """Memories of twice the depth, where that is possible; None if none can grow."""
    larger = config
    for name in _MEMORIES:
        try:
            larger = larger.with_(**{name: 2 * int(getattr(larger, name))})
        except ConfigError:
            continue
    return None if larger == config else larger


class Subject:
    """Measures jobs.

    On the model, memories are taken as large as the work needs, which changes no result and few
    cycles (banks of the scratchpad meet elsewhere); on RTL, what does not fit is left out.  Either
    way a note says so.

    Parameters
    ----------
    name, config : the accelerator.
    on : RTL or model.
    seed : of weights and inputs.
    hop_latency : cycles more for a level of the reduction tree and of the gather network, for
        wires longer than the RTL's; only on the model.

    Raises
    ------
    AfternormError
        If `hop_latency` is set on RTL, or negative.
    """

    def __init__(
        self, name: str, config: Config, on: On, *, seed: int = 0, hop_latency: int = 0
    ) -> None:
        if hop_latency < 0 or (on == "rtl" and hop_latency):
            raise AfternormError(
                f"a hop latency of {hop_latency}: the RTL's wires have none beside its registers; "
                "on the model it may be 0 or more"
            )
        self.name, self.config, self.on = name, config, on
        self.seed, self.hop_latency = seed, hop_latency
        self._built: dict[Config, Any] = {}
        self._times: dict[tuple[Config, bytes], Prediction] = {}
        self._notes: list[str] = []
        self._largest = config

    def result(self, name: str, title: str) -> BenchResult:
        """An empty result of a benchmark."""
        return BenchResult(
            name=name,
            title=title,
            configuration=self.name,
            parameters=self.config.to_dict(),
            on=self.on,
            seed=self.seed,
            hop_latency=self.hop_latency,
        )

    def measure(self, result: BenchResult, cases: Sequence[Case]) -> None:
        """Add the measurements of all cases that fit to a result, and notes on the others."""
        with progress(f"measuring {result.name}", total=len(cases)) as advance:
            for number, case in enumerate(cases):
                result.measurements += self._case(case)
                advance(number + 1)
        if not result.measurements:
            raise CapacityError(f"none of the work fits: {'; '.join(self._notes)}")
        result.notes += self.notes()

    def notes(self) -> list[str]:
        """What was left out or changed so far."""
        sizes = [
            f"{size} {int(getattr(self._largest, size)):,}"
            for size in _MEMORIES
            if getattr(self._largest, size) != getattr(self.config, size)
        ]
        return (
            [f"memories are as large as the work needs: up to {', '.join(sizes)}"] if sizes else []
        ) + self._notes

    def with_room(
        self, config: Config, measure: Callable[[Config], list[Measurement]]
    ) -> list[Measurement]:
        """What `measure` measures on `config`, with memories as large as all of it needs together.

        Raises
        ------
        CapacityError
            If none are large enough.
        """
        while True:
            try:
                measured = measure(config)
            except CapacityError:
                larger = enlarged(config)
                if larger is None:
                    raise
                config = larger
            else:
                self.note_memories(config)
                return measured

    def note_memories(self, config: Config) -> None:
        """Remember that work took an accelerator with memories of this size."""
        if config.scratchpad_depth > self._largest.scratchpad_depth:
            self._largest = config

    def skip(self, labels: Mapping[str, Label], reason: str) -> None:
        """Note that work is left out."""
        what = " ".join(f"{name}={value}" for name, value in labels.items())
        self._notes.append(f"left out: {what}: {reason}")

    def _case(self, case: Case) -> list[Measurement]:
        """The measurements of a case; none if it does not fit."""
        try:
            jobs = self._compile(case)
        except (CapacityError, ConfigError) as error:
            self.skip(case.labels, str(error))
            return []
        ideal = max(int(job.info["ideal"]) for job in jobs)
        if self.on == "rtl" and ideal > RTL_CYCLES:
            self.skip(case.labels, f"{ideal:,} array cycles would take long to simulate")
            return []
        return [
            self.job(job, case.labels, schedule)
            for schedule, job in zip(case.schedules, jobs, strict=True)
        ]

    def _compile(self, case: Case) -> list[Job]:
        """The jobs of a case, all for the same accelerator."""
        config, reason = self.config.with_(**case.changes), ""
        while True:
            try:
                jobs = [case.make(config, schedule) for schedule in case.schedules]
            except CapacityError as error:
                larger = enlarged(config) if self.on == "model" else None
                # What more memory does not change is not for lack of memory.
                if larger is None or str(error) == reason:
                    raise
                config, reason = larger, str(error)
            else:
                self.note_memories(config)
                return jobs

    def job(self, job: Job, labels: dict[str, Label], schedule: Schedule) -> Measurement:
        """Measure one job; on RTL, every word is compared with the golden machine."""
        c = job.config
        common: dict[str, Any] = {
            "labels": labels,
            "schedule": schedule,
            "ideal": int(job.info["ideal"]),
            "macs": int(job.info["macs"]),
            "multipliers": c.macs,
            "instructions": len(job.program),
        }
        if self.on == "model":
            time = predict(c, job.program, hop_latency=self.hop_latency)
            return Measurement(cycles=time.cycles, span=time.span, lost=time.lost, **common)
        outcome = run_rtl(job, self.built(c))
        if outcome.status != Status.DONE:
            raise SimulationError(
                f"the accelerator stopped at instruction {outcome.error_index}: "
                f"{outcome.error.name.lower()} error"
            )
        return Measurement(
            cycles=outcome.cycles,
            span=outcome.span if common["ideal"] else 0,
            lost=outcome.lost,
            differ=compare(job, outcome, run_golden(job)).mismatches,
            **common,
        )

    def time(self, config: Config, program: ModelProgram) -> Prediction:
        """Predict a program, once: those of two schedules may be the same."""
        key = config, sha256(program.words).digest()
        if key not in self._times:
            self._times[key] = predict(config, program.instructions, hop_latency=self.hop_latency)
        return self._times[key]

    def built(self, config: Config) -> Any:
        """The simulation of an accelerator."""
        if config not in self._built:
            with progress("building the simulation"):
                self._built[config] = build(config)
        return self._built[config]
