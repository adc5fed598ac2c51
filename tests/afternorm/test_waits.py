# SPDX-License-Identifier: Apache-2.0
"""No schedule waits needlessly: without any one of its waits a program would be wrong.

The conventional orders are baselines, so theirs are what matters most.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pytest

from afternorm.checkpoints import seeded_input, seeded_layer
from afternorm.compiler.accesses import Memory, accesses, tap
from afternorm.compiler.kernels import compile_attention, compile_norm_linear
from afternorm.compiler.layer import compile_layer
from afternorm.compiler.layer_weights import SCHEDULES, Schedule
from afternorm.config import Config, preset
from afternorm.isa import Engine, Instruction, Opcode
from afternorm.job import Job

ONE = preset("tiny").with_(
    rows_max=32, scratchpad_depth=8192, vector_depth=2048, stat_depth=256, scale_depth=512
)
MACHINES = {"T1": ONE, "T2": ONE.with_(tiles=2)}

START, EARLY, END = range(3)
"""What happens to an instruction."""


class Token(NamedTuple):
    """The event of an instruction that lets another one begin."""

    producer: int
    event: int
    consumer: int


def tokens(program: list[Instruction]) -> list[Token]:
    """The k-th that waits for a semaphore takes what the k-th signals."""
    signalled = defaultdict(list)
    for number, i in enumerate(program):
        for semaphore in i.signals:
            signalled[semaphore].append((number, END))
        if i.early is not None:
            signalled[i.early].append((number, EARLY))
    waiting = {semaphore: iter(events) for semaphore, events in signalled.items()}
    return [Token(*next(waiting[s]), number) for number, i in enumerate(program) for s in i.waits]


def earlier(program: list[Instruction], taken: list[Token]) -> np.ndarray:
    """``[instruction, a, event]``: which events come before an instruction starts for sure."""
    count = len(program)
    before = np.zeros((count, 3, count, 3), dtype=bool)
    needs = defaultdict(list)
    for token in taken:
        needs[token.consumer].append(token)
    last: dict[Engine | None, int] = {}
    for number, i in enumerate(program):
        start, early, end = before[number]
        if i.engine in last:
            previous = last[i.engine]
            before[number] |= before[previous]
            for event in (START, EARLY, END):
                before[number, event, previous, event] = True
            if i.drain or i.opcode == Opcode.SYNC:
                start |= end
        for producer, event, _ in needs[number]:
            start |= before[producer, event]
            start[producer, event] = True
        early |= start
        early[number, START] = True
        end |= early
        end[number, EARLY] = True
        last[i.engine] = number
    return before[:, START]


def ordered(program: list[Instruction], taken: list[Token], pairs: list[Token]) -> bool:
    """Whether each pair's event comes before its second instruction starts."""
    before = earlier(program, taken)
    return all(before[b, a, event] for a, event, b in pairs)


def conflicts(config: Config, program: list[Instruction]) -> Iterator[Token]:
    """Pairs of instructions of different engines that touch the same, and one of them writes.

    Statistics may be used, and scales followed row by row, from an early event on.
    """
    touched = [accesses(config, i) for i in program]
    for (a, one), (b, other) in combinations(enumerate(touched), 2):
        if program[a].engine == program[b].engine:
            continue
        for memory in Memory:
            written, read = one.writes.get(memory), one.reads.get(memory)
            shared = [
                np.intersect1d(x, y)
                for x, y in (
                    (written, other.writes.get(memory)),
                    (written, other.reads.get(memory)),
                    (read, other.writes.get(memory)),
                )
                if x is not None and y is not None
            ]
            words = np.concatenate(shared) if shared else np.zeros(0, dtype=int)
            if not len(words):
                continue
            statistics = memory == Memory.STAT or (
                memory == Memory.RESOURCE and (words == tap(config)).all()
            )
            followed = (
                program[a].engine == Engine.REDUCE
                and memory == Memory.SCALE
                and other.row_scale_base == program[a]["scale_base"]
            )
            early = followed or (program[a].engine == Engine.MATMUL and statistics)
            yield Token(a, EARLY if early else END, b)


def job(config: Config, kind: str, schedule: Schedule) -> Job:
    """Some work on 40 rows: conventional orders normalize them in 32 and 8, or in two groups."""
    if kind == "norm":
        return compile_norm_linear(config, "rms", 32, 32, 40, schedule=schedule)
    if kind == "attention":
        return compile_attention(config, 40, 16, 2, True, schedule=schedule)
    layer = seeded_layer(kind, 0, dim=16, heads=2, hidden=32)
    return compile_layer(config, layer, seeded_input(layer, 0, 40), schedule)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", ["norm", "attention", "llama", "bert"])
@pytest.mark.parametrize("machine", MACHINES)
def test_each_wait_orders_two_that_touch_the_same(
    machine: str, kind: str, schedule: Schedule
) -> None:
    config = MACHINES[machine]
    program = job(config, kind, schedule).program
    taken, pairs = tokens(program), list(conflicts(config, program))
    assert ordered(program, taken, pairs)
    assert taken
    for number, token in enumerate(taken):
        assert not ordered(program, taken[:number] + taken[number + 1 :], pairs), token
