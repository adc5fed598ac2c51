# SPDX-License-Identifier: Apache-2.0
"""The assembler: whatever the engines' timing, results are the sequential ones."""

import copy
import random
import time
from collections import deque

import numpy as np
import pytest

from afternorm.compiler.accesses import Memory, accesses
from afternorm.compiler.assembler import TOKENS_MAX, Assembler, listing
from afternorm.config import Config, preset
from afternorm.isa import (
    SIGNALS,
    WAITS,
    Engine,
    Function,
    Instruction,
    Opcode,
    Operand,
    Source,
    Stats,
)
from afternorm.simulation import loaded_machine
from golden.machine import Machine
from tb.random_program import random_job

IN_ORDER = (Engine.MATMUL, Engine.EXP, Engine.LOAD, Engine.STORE)
MEMORIES = ("mantissas", "exponents", "vector", "scales", "stats", "acc", "dram")


class Overlapped:
    """Runs a program with engines that overlap in a random, legal way.

    An instruction starts when its semaphores are granted (and, with `drain`, the engine's
    earlier instructions are done); it ends in order.  In between it reads and writes at
    random: all at the start, all at the end, or reads at the start and writes at the end.
    An `early` signal comes between start and end, after everything but the accumulators.
    """

    def __init__(self, config: Config, machine: Machine, rng: random.Random) -> None:
        self.config = config
        self.machine = machine
        self.rng = rng
        self.counts = [0] * config.semaphores
        self.peak = 0
        self.queues: list[deque[Instruction]] = [deque() for _ in Engine]
        self.running: list[deque[dict]] = [deque() for _ in Engine]

    def run(self, program: list[Instruction]) -> None:
        pending = deque(program)
        while True:
            moves = []
            if pending and pending[0].opcode != Opcode.END:
                queue = self.queues[pending[0].engine]
                if len(queue) < self.config.queue_depth:
                    moves.append((self._dispatch, pending, queue))
            for engine in Engine:
                if self._startable(engine):
                    moves.append((self._start, engine))
                if self.running[engine]:
                    moves.append((self._end, engine))
                for flight in self.running[engine]:
                    if not flight["early"]:
                        moves.append((self._early, engine, flight))
                        break
            if not moves:
                break
            move, *arguments = self.rng.choice(moves)
            move(*arguments)
        assert pending[0].opcode == Opcode.END, "deadlock before dispatch"
        assert not any(self.queues), "deadlock"
        assert not any(self.counts), "tokens are left"

    def _dispatch(self, pending: deque[Instruction], queue: deque[Instruction]) -> None:
        queue.append(pending.popleft())

    def _startable(self, engine: Engine) -> bool:
        if not self.queues[engine]:
            return False
        i = self.queues[engine][0]
        if any(not self.counts[s] for s in i.waits):
            return False
        barrier = i.drain or (i.opcode == Opcode.SYNC and i.signals)
        return not (barrier and self.running[engine])

    def _start(self, engine: Engine) -> None:
        i = self.queues[engine].popleft()
        for semaphore in i.waits:
            self.counts[semaphore] -= 1
        flight = {"i": i, "early": i.early is None, "late": None}
        how = self.rng.choice(["start", "end", "split"])
        if engine in IN_ORDER:
            # Pipelines in order: what is before has read and written.
            for other in self.running[engine]:
                self._finish(other)
            how = "end" if how == "split" and i.opcode == Opcode.MATMUL else how
        if how == "start":
            self._execute(self.machine, i)
        elif how == "end":
            flight["late"] = lambda: self._execute(self.machine, i)
        else:
            after = copy.copy(self.machine)
            for name in MEMORIES:
                setattr(after, name, getattr(self.machine, name).copy())
            self._execute(after, i)
            flight["late"] = lambda: self._write(i, after)
        self.running[engine].append(flight)

    def _execute(self, machine: Machine, i: Instruction) -> None:
        machine.run([Instruction(i.opcode, i.body), Instruction(Opcode.END)])

    def _write(self, i: Instruction, after: Machine) -> None:
        found = accesses(self.config, i)
        touched = found.writes
        self.machine.flags |= after.flags
        if i.opcode == Opcode.STORE:
            for first, end in found.dram:
                self.machine.dram[:, first:end] = after.dram[:, first:end]
        for memory, names in (
            (Memory.SCRATCHPAD, ("mantissas", "exponents")),
            (Memory.VECTOR, ("vector",)),
            (Memory.SCALE, ("scales",)),
            (Memory.STAT, ("stats",)),
        ):
            if memory in touched:
                for name in names:
                    words = touched[memory]
                    getattr(self.machine, name)[:, words] = getattr(after, name)[:, words]

    def _finish(self, flight: dict) -> None:
        if flight["late"]:
            flight["late"]()
            flight["late"] = None

    def _early(self, engine: Engine, flight: dict) -> None:
        for other in self.running[engine]:
            if engine in IN_ORDER or other is flight:
                self._finish(other)
            if other is flight:
                break
        self._signal(flight["i"].early)
        flight["early"] = True

    def _end(self, engine: Engine) -> None:
        flight = self.running[engine].popleft()
        self._finish(flight)
        if not flight["early"]:
            self._signal(flight["i"].early)
        for semaphore in flight["i"].signals:
            self._signal(semaphore)

    def _signal(self, semaphore: int) -> None:
        self.counts[semaphore] += 1
        self.peak = max(self.peak, self.counts[semaphore])
        assert self.counts[semaphore] <= TOKENS_MAX


def assert_same(one: Machine, other: Machine) -> None:
    for name in MEMORIES:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.flags == other.flags


@pytest.mark.parametrize("tiles", [1, 3])
@pytest.mark.parametrize("case", range(8))
def test_every_legal_order_gives_the_sequential_result(seed: int, case: int, tiles: int) -> None:
    config = preset("tiny").with_(tiles=tiles, queue_depth=(4, 16)[case % 2])
    job = random_job(config, seed + case, 80, functions=(Function.NONE,))
    sequential = loaded_machine(job)
    sequential.run(job.program)
    for order in range(6):
        machine = loaded_machine(job)
        Overlapped(config, machine, random.Random(seed + case + order)).run(job.program)
        assert_same(machine, sequential)


def without(program: list[Instruction], number: int) -> list[Instruction]:
    """The program with all tokens of a semaphore removed."""
    return [
        Instruction(
            i.opcode,
            i.body,
            tuple(s for s in i.waits if s != number),
            tuple(s for s in i.signals if s != number),
            None if i.early == number else i.early,
            i.drain,
        )
        for i in program
    ]


def test_the_property_test_notices_missing_tokens(seed: int) -> None:
    config = preset("tiny")
    noticed = total = 0
    for case in range(3):
        job = random_job(config, seed + case, 80, functions=(Function.NONE,))
        sequential = loaded_machine(job)
        sequential.run(job.program)
        variants = [without(job.program, s) for s in range(8)]
        variants.append(
            [Instruction(i.opcode, i.body, i.waits, i.signals, i.early) for i in job.program]
        )
        for variant in variants:
            total += 1
            for order in range(6):
                machine = loaded_machine(job)
                Overlapped(config, machine, random.Random(order)).run(variant)
                try:
                    assert_same(machine, sequential)
                except AssertionError:
                    noticed += 1
                    break
    assert noticed > total / 2


def matmul(**fields: int) -> dict[str, int]:
    return {"rows": 4, "blocks": 1, "cols": 8, "a_row": 1, "b_base": 16, "b_col": 1} | fields


def drain_bank(**fields: int) -> dict[str, int]:
    return {"rows": 4, "cols": 8, "to_blocks": 1, "m_row": 1} | fields


def test_limits_of_an_instruction(seed: int) -> None:
    for case in range(5):
        job = random_job(preset("tiny"), seed + case, 200, functions=(Function.NONE,))
        for i in job.program:
            assert len(i.waits) <= WAITS and len(i.signals) <= SIGNALS
            assert len(set(i.waits)) == len(i.waits)
            i.pack()


def test_statistics_use_the_early_signals() -> None:
    a = Assembler(preset("tiny"))
    a.emit(Opcode.MATMUL, **matmul(stats=Stats.A, stat_first=1))
    a.emit(Opcode.REDUCE, rows=4, scale_base=8)
    a.emit(Opcode.VECTOR, **drain_bank(a=Operand.ROW_SCALE, scale_base=8, m_base=100))
    product, reduce, vector, end = a.finish()
    assert product.early is not None and reduce.waits == (product.early,)
    assert reduce.early is not None
    assert set(vector.waits) == {reduce.early, *product.signals}
    assert end.opcode == Opcode.END


def test_scales_read_from_another_row_wait_for_all() -> None:
    a = Assembler(preset("tiny"))
    a.emit(Opcode.MATMUL, **matmul(stats=Stats.A, stat_first=1))
    a.emit(Opcode.REDUCE, rows=4, scale_base=8)
    a.emit(Opcode.VECTOR, **drain_bank(a=Operand.ROW_SCALE, scale_base=7, m_base=100))
    _, reduce, vector, _ = a.finish()
    assert reduce.early is None and set(reduce.signals) <= set(vector.waits)


def test_redundant_tokens_are_left_out() -> None:
    a = Assembler(preset("tiny"))
    a.emit(Opcode.MATMUL, **matmul())
    a.emit(Opcode.VECTOR, **drain_bank(m_base=100))
    a.emit(Opcode.VECTOR, **drain_bank(m_base=200))  # ordered by the first pass's wait
    a.emit(Opcode.MATMUL, **matmul(a_base=200, bank=1))
    a.emit(Opcode.EXP, rows=4, cols=8, bank=1, p_base=100, p_row=1)  # WAW with VECTOR: known
    program = a.finish()
    assert [len(i.waits) for i in program] == [0, 1, 0, 1, 1, 0]


def test_drain_only_where_an_engine_meets_its_own_words() -> None:
    a = Assembler(preset("tiny"))
    source = {"source": Source.VECTOR, "rows": 2, "cols": 4, "to_vector": 1}
    a.emit(Opcode.VECTOR, **source, x_base=0, y_base=8, x_row=1, y_row=1)
    a.emit(Opcode.VECTOR, **source, x_base=4, y_base=16, x_row=1, y_row=1)
    a.emit(Opcode.VECTOR, **source, x_base=8, y_base=24, x_row=1, y_row=1)  # RAW
    a.emit(Opcode.VECTOR, **source, x_base=40, y_base=4, x_row=1, y_row=1)  # WAR, known done
    a.emit(Opcode.VECTOR, **source, x_base=48, y_base=40, x_row=1, y_row=1)  # WAR
    assert [i.drain for i in a.finish()] == [False, False, True, False, True, False]


def test_more_signals_than_fields_take_a_sync() -> None:
    a = Assembler(preset("tiny"))
    a.emit(Opcode.VECTOR, rows=4, cols=8, source=Source.VECTOR, to_blocks=1, m_row=1)
    a.emit(Opcode.MATMUL, **matmul(rows=1))
    a.emit(Opcode.EXP, rows=1, cols=8, bank=1, p_base=1)
    a.emit(Opcode.SCAN, rows=1, blocks=1, a_base=2, stat_first=1)
    a.emit(Opcode.GATHER, rows=1, blocks=1, src_base=3, dst_base=64)
    program = a.finish()
    assert [i.opcode for i in program[:2]] == [Opcode.VECTOR, Opcode.SYNC]
    assert len(program[0].signals) == 3 and len(program[1].signals) == 1


def test_tokens_stay_below_the_counters_limit() -> None:
    config = preset("tiny")
    a = Assembler(config)
    for n in range(400):
        a.emit(Opcode.GATHER, rows=1, blocks=1, src_base=0, dst_base=1000 + n)
    for n in range(400):
        a.emit(Opcode.SCAN, rows=1, blocks=1, a_base=1000 + n, stat_first=1)
    machine = Machine(config)
    run = Overlapped(config, machine, random.Random(1))
    run.rng.choice = lambda moves: moves[0]  # dispatch, and the first engine, first
    run.run(a.finish())
    assert run.peak <= TOKENS_MAX


@pytest.mark.parametrize(
    "fields",
    [
        {"x_base": 0, "x_row": 2, "y_base": 0, "y_row": 1},
        {"x_base": 1, "x_row": 2, "y_base": 0, "y_row": 2},
        {"x_base": 20, "x_row": 2, "y_base": 0, "y_row": 1},
        {"x_base": 20, "x_row": 2, "y_base": 0, "y_row": 0},
    ],
)
def test_illegal_overlaps(fields: dict[str, int]) -> None:
    body = {"rows": 2, "cols": 8, "source": Source.VECTOR, "to_vector": 1} | fields
    config = preset("tiny")
    with pytest.raises(ValueError, match="VECTOR"):
        accesses(config, Instruction(Opcode.VECTOR, body))
    accesses(
        config,
        Instruction(Opcode.VECTOR, body | {"x_base": 0, "x_row": 2, "y_base": 0, "y_row": 2}),
    )


def test_errors() -> None:
    a = Assembler(preset("tiny"))
    with pytest.raises(ValueError, match="assembler's own"):
        a.emit(Opcode.END)
    with pytest.raises(ValueError, match="rows"):
        a.emit(Opcode.REDUCE, rows=0)


def test_listing() -> None:
    a = Assembler(preset("tiny"))
    a.emit(Opcode.MATMUL, **matmul(stats=Stats.A, stat_first=1))
    a.emit(Opcode.REDUCE, rows=4)
    text = listing(a.finish())
    assert text.splitlines()[0].split()[1] == "matmul"
    assert "!0early" in text and "?0 reduce" in text


def test_a_thousand_instructions_take_less_than_a_second(seed: int) -> None:
    start = time.perf_counter()
    random_job(preset("medium"), seed, 1000)
    assert time.perf_counter() - start < 1.0
