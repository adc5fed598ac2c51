# SPDX-License-Identifier: Apache-2.0
"""The sweep: tasks of all points, those that are not known evaluated, and what comes of them."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal

from afternorm.compiler.layer_weights import Schedule
from afternorm.errors import AfternormError
from afternorm.explore.pareto import pareto_front
from afternorm.explore.results import Results
from afternorm.explore.space import Candidate, Space
from afternorm.explore.tasks import (
    AreaTask,
    CyclesTask,
    ErrorTask,
    Finished,
    LossTask,
    Outcome,
    Task,
)
from afternorm.memory import memory_bits
from afternorm.progress import progress

Runner = Callable[[Sequence[Task]], Finished]
"""Evaluates tasks, in any order; what it has started ends when it is closed."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """An accelerator under a schedule.

    Attributes
    ----------
    preset, sizes, schedule : what it is.
    status : ``done``, ``impossible`` or ``failed``.
    reason : why it is not done.
    scores
        By name, if it is done: `macs` and `memory_bits` of the accelerator; `cycles`, the sum
        over the workloads, and `used`, the share of the multipliers' cycles that their products
        need; `error`, the largest of the workloads; `loss`; kinds of `afternorm.targets.KINDS`.
    workloads : scores of each workload.
    front : whether it is on the Pareto front.
    """

    preset: str
    sizes: dict[str, int]
    schedule: Schedule
    status: Literal["done", "impossible", "failed"]
    reason: str
    scores: dict[str, float]
    workloads: dict[str, dict[str, float]]
    front: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        what = {"preset": self.preset, "parameters": self.sizes, "schedule": self.schedule}
        if self.status != "done":
            return what | {"status": self.status, "reason": self.reason}
        scores = {"scores": self.scores, "workloads": self.workloads}
        return what | {"status": self.status, "front": self.front, **scores}


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """A space with all its points.

    Attributes
    ----------
    space : what was asked for.
    points : in the order of the space.
    evaluated, known : tasks that were evaluated, and that were known from before.
    """

    space: Space
    points: list[Point]
    evaluated: int
    known: int

    @property
    def done(self) -> list[Point]:
        """The points with scores: those on the front first, each part by its objectives."""
        points = [point for point in self.points if point.status == "done"]
        names = self.space.objectives
        return sorted(points, key=lambda p: (not p.front, [p.scores[name] for name in names]))

    @property
    def others(self) -> list[Point]:
        """The points without."""
        return [point for point in self.points if point.status != "done"]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        s = self.space
        return {
            "space": s.name,
            "scores": s.scores,
            "objectives": s.objectives,
            "schedules": s.schedules,
            "workloads": [{"name": w.name, "count": w.count, **w.content()} for w in s.workloads],
            "target": s.target if "area" in s.scores else None,
            "unit": s.unit if "area" in s.scores else None,
            "points": [point.to_dict() for point in self.points],
        }


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what is done and what there is."""

    def __init__(self, done: int, total: int) -> None:
        super().__init__()
        self.done, self.total = done, total


def explore(space: Space, results: Results, runner: Runner) -> Exploration:
    """Score all points of a space; tasks that `results` knows are not evaluated again.

    Raises
    ------
    AfternormError
        If something is wrong with all tasks of a kind.
    Interrupted
        After Ctrl-C; all that was finished is kept.
    """
    plans = [
        (candidate, schedule, _tasks(space, candidate, schedule))
        for candidate in space.candidates
        for schedule in space.schedules
    ]
    tasks = {task.key: task for *_, some in plans for task in some}
    outcomes = {key: found for key, task in tasks.items() if (found := results.get(task))}
    known = len(outcomes)
    missing = [task for key, task in tasks.items() if key not in outcomes]
    if missing:
        _evaluate(missing, outcomes, results, runner, len(tasks))
    points = [
        _point(space, candidate, schedule, [(task, outcomes[task.key]) for task in some])
        for candidate, schedule, some in plans
    ]
    done = [number for number, point in enumerate(points) if point.status == "done"]
    front = pareto_front([[points[n].scores[o] for o in space.objectives] for n in done])
    for number, best in zip(done, front, strict=True):
        points[number] = replace(points[number], front=best)
    return Exploration(space=space, points=points, evaluated=len(missing), known=known)


def _evaluate(
    tasks: Sequence[Task],
    outcomes: dict[str, Outcome],
    results: Results,
    runner: Runner,
    total: int,
) -> None:
    """Evaluate tasks; each outcome is kept at once."""
    try:
        with progress("exploring", total=total) as advance, closing(runner(tasks)) as finished:
            advance(len(outcomes))
            for task, outcome in finished:
                if outcome.status == "fatal":
                    raise AfternormError(f"{task.about}: {outcome.reason}")
                results.put(task, outcome)
                outcomes[task.key] = outcome
                advance(len(outcomes))
    except KeyboardInterrupt as interrupt:
        raise Interrupted(len(outcomes), total) from interrupt


def _tasks(space: Space, candidate: Candidate, schedule: Schedule) -> list[Task]:
    """What a point's scores take."""
    config = candidate.config
    if config is None:
        return []
    tasks: list[Task] = []
    code = Task.sources()
    for workload in space.workloads:
        if "cycles" in space.scores:
            tasks.append(
                CyclesTask(
                    config=config,
                    code=code,
                    workload=workload,
                    schedule=schedule,
                    dram_latency=space.dram_latency,
                    hop_latency=space.hop_latency,
                )
            )
        if "accuracy" in space.scores:
            tasks.append(ErrorTask(config=config, code=code, workload=workload, schedule=schedule))
    if space.texts is not None:
        tasks.append(LossTask(config=config, code=code, schedule=schedule, texts=space.texts))
    if "area" in space.scores:
        tasks.append(
            AreaTask(
                config=config,
                code=AreaTask.sources(),
                target=space.target,
                unit=space.unit,
            )
        )
    return tasks


def _point(
    space: Space,
    candidate: Candidate,
    schedule: Schedule,
    outcomes: Sequence[tuple[Task, Outcome]],
) -> Point:
    """Put a point together."""
    config = candidate.config
    status: Literal["done", "impossible", "failed"] = "done"
    reason = candidate.reason
    if config is None:
        status = "impossible"
    for task, outcome in outcomes:
        if outcome.status == "impossible" or (outcome.status == "failed" and status == "done"):
            if status != "impossible":
                reason = f"{task.about}: {outcome.reason}"
            status = outcome.status
    scores: dict[str, float] = {}
    workloads: dict[str, dict[str, float]] = {}
    if config is not None and status == "done":
        for task, outcome in outcomes:
            if isinstance(task, CyclesTask | ErrorTask):
                workloads.setdefault(task.workload.name, {}).update(outcome.scores)
            else:
                scores |= outcome.scores
        scores |= {"macs": config.macs, "memory_bits": sum(memory_bits(config).values())}
        scores |= _over_workloads(space, workloads, config.macs)
    return Point(
        preset=candidate.preset,
        sizes=candidate.sizes,
        schedule=schedule,
        status=status,
        reason=reason,
        scores=scores,
        workloads=workloads,
    )


def _over_workloads(
    space: Space, workloads: dict[str, dict[str, float]], macs: int
) -> dict[str, float]:
    """All workloads in one."""
    scores: dict[str, float] = {}
    if workloads and "cycles" in space.scores:
        counts = {workload.name: workload.count for workload in space.workloads}
        cycles, needed = (
            sum(counts[name] * each[score] for name, each in workloads.items())
            for score in ("cycles", "macs")
        )
        scores |= {"cycles": cycles, "used": needed / (cycles * macs)}
    if workloads and "accuracy" in space.scores:
        scores["error"] = max(each["error"] for each in workloads.values())
    return scores
