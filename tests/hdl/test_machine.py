# SPDX-License-Identifier: Apache-2.0
"""The whole accelerator against the golden machine: random programs, errors, the host port.

Every word that a program writes is compared, and the sticky flags.
"""

from dataclasses import replace

import numpy as np
import pytest

from afternorm.compiler.accesses import Memory
from afternorm.compiler.assembler import Assembler
from afternorm.isa import Engine, Error, Instruction, Opcode, Target
from afternorm.job import DATA, Image, Job
from afternorm.memory_map import Status
from afternorm.simulation import build, compare, run_golden, run_rtl
from golden.machine import MachineError
from tb.machine import CONFIGS, TINY, run_exact
from tb.random_program import OPCODES, random_job
from tb.stream import STALLS

PROGRAMS = 6


@pytest.mark.parametrize("first", [0, pytest.param(PROGRAMS, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n == "T3-B8-F23" else []) for n in CONFIGS],
)
def test_random_programs(name: str, first: int, seed: int) -> None:
    """All opcodes and modes; DRAM never stalls, now and then, or most of the time."""
    for number in range(first, first + PROGRAMS):
        run_exact(random_job(CONFIGS[name], seed + number), seed + number, stall=STALLS[number % 3])


def test_host_reads_do_not_disturb(seed: int) -> None:
    """Host reads while a program runs change neither results nor, on several tiles, lock-step."""
    for number in range(3):
        run_exact(random_job(CONFIGS["T2-B16-F9"], seed + number), seed + number, disturb=0.5)


def test_comparison_sees_a_flipped_bit(seed: int) -> None:
    job = random_job(TINY, seed)
    golden = run_golden(job)
    outcome = run_rtl(job, build(TINY), seed=seed)
    memory, words = next((m, w) for m, w in job.written.items() if len(w))
    target = {0: outcome.image.mantissas, 1: outcome.image.vector, 2: outcome.scales}[memory]
    value = target[0, words[0]].flat[0]
    target[0, words[0]].flat[0] = value ^ 1 if target.dtype == np.int8 else value + 1
    assert compare(job, outcome, golden).mismatches == 1


def test_dram(seed: int) -> None:
    """Data in DRAM before and after a job; a wrong byte is seen."""
    rng = np.random.default_rng(seed)
    count, exponents, target = 20, 0x400, 0x2000
    fields = {"target": Target.BLOCKS, "count": count, "base": 7}
    program = [
        Instruction(
            Opcode.LOAD, {**fields, "dram": DATA, "exponents": DATA + exponents}, signals=(0,)
        ),
        Instruction(
            Opcode.STORE,
            {**fields, "dram": DATA + target, "exponents": DATA + target + exponents},
            waits=(0,),
        ),
        Instruction(Opcode.END),
    ]
    data = rng.integers(256, size=exponents, dtype=np.uint8).tobytes()
    data += rng.integers(-512, 512, size=count, dtype=np.int16).tobytes()
    written = [(DATA + target, count * TINY.block), (DATA + target + exponents, 2 * count)]
    job = Job(
        TINY,
        program,
        Image.empty(TINY),
        {},
        {Memory.SCRATCHPAD: np.arange(7, 7 + count)},
        dram=data,
        dram_written=written,
    )
    outcome = run_exact(job, seed)
    assert outcome.dram == [data[: written[0][1]], data[exponents:]]
    wrong = bytearray(outcome.dram[0])
    wrong[5] ^= 1
    comparison = compare(
        job, replace(outcome, dram=[bytes(wrong), *outcome.dram[1:]]), run_golden(job)
    )
    assert comparison.mismatches == 1
    assert f"{DATA + target + 5:#x}" in comparison.first


def stopping(instruction: Instruction) -> Job:
    """A program with two harmless instructions before the one that stops it."""
    assembler = Assembler(TINY)
    for _ in range(2):
        assembler.emit(Opcode.MATMUL, rows=2, blocks=1, cols=2)
    program = assembler.finish()
    program.insert(2, instruction)
    return Job(TINY, program, Image.empty(TINY), {}, {})


@pytest.mark.parametrize(
    ("instruction", "code"),
    [
        (Instruction(Opcode.MATMUL, {"rows": 2, "blocks": 1, "cols": 0}), Error.OPERAND),
        (Instruction(Opcode.EXP, {"rows": 2, "cols": 2, "bank": 7}), Error.OPERAND),
        (
            Instruction(Opcode.SCAN, {"rows": 2, "blocks": 1, "a_base": 8191, "a_row": 1}),
            Error.ADDRESS,
        ),
        (
            Instruction(Opcode.GATHER, {"rows": 1, "blocks": 2, "dst_block": 1 << 15}),
            Error.ADDRESS,
        ),
        (Instruction(Opcode.SYNC, {"engine": Engine.EXP}, waits=(50,)), Error.SEMAPHORE),
        (Instruction(Opcode.SYNC, {"engine": Engine.EXP}, early=61), Error.SEMAPHORE),
        (Instruction(Opcode.SYNC, {"engine": 7}), Error.OPERAND),
        (Instruction(Opcode.SYNC, {"engine": Engine.VECTOR}, waits=(9,)), Error.DEADLOCK),
    ],
    ids=lambda value: value.name if isinstance(value, Error) else value.opcode.name,
)
def test_stops(instruction: Instruction, code: Error, seed: int) -> None:
    """The machine stops where the golden machine does, and says so."""
    job = stopping(instruction)
    with pytest.raises(MachineError) as caught:
        run_golden(job)
    assert (caught.value.code, caught.value.index) == (code, 2)
    outcome = run_rtl(job, build(TINY), seed=seed, max_cycles=20_000)
    assert outcome.status == Status.ERROR
    assert (outcome.error, outcome.error_index) == (code, 2)


def test_illegal_opcode(seed: int) -> None:
    """A word that is no instruction, and memory that was never written."""
    job = stopping(Instruction(Opcode.SYNC))
    words = [i.pack() for i in job.program]
    for word in (10, 0):
        words[2] = word
        outcome = run_rtl(job, build(TINY), seed=seed, program=words, max_cycles=20_000)
        assert (outcome.error, outcome.error_index) == (Error.OPCODE, 2)


def test_reset_recovers(seed: int) -> None:
    """A soft reset in the midst of a program leaves nothing of it: the next runs bit for bit."""
    job = random_job(TINY, seed)
    inside = [opcode for opcode in OPCODES if opcode != Opcode.STORE]
    before = random_job(TINY, seed + 1, opcodes=inside)
    crashes = [instruction.pack() for instruction in before.program[: 10 + seed % 20]]
    crashes.append(Instruction(Opcode.EXP, {"rows": 0}).pack())
    outcome = run_rtl(job, build(TINY), seed=seed, crash_first=crashes)
    assert compare(job, outcome, run_golden(job)).mismatches == 0
