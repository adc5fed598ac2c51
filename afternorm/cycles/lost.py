# SPDX-License-Identifier: Apache-2.0
"""To whom the array's idle slots are lost, as `hdl.scheduler.lost_slots` attributes them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from afternorm.config import Config
from afternorm.cycles.timing import ENTER_TO_GRANT, FIFO, LEAVE_TO_OFFER, TILER_PERIOD
from afternorm.isa import Engine, Instruction, Opcode
from afternorm.memory_map import Lost

Interval = tuple[int, int, Lost]
"""The first cycle, the one behind the last, and whose they are."""


class Passage(NamedTuple):
    """An instruction's way through the matmul engine's front end, in cycles.

    Attributes
    ----------
    instruction : which.
    entered, left : it leaves the queue for the head, and the head.
    tokens : from when it could take its semaphores, by semaphore.
    passed : the engine accepts it, or a SYNC passes.
    """

    instruction: Instruction
    entered: int
    left: int
    tokens: dict[int, int]
    passed: int


def lost_slots(
    config: Config,
    program: Sequence[Instruction],
    passages: Sequence[Passage],
    blocked: Sequence[tuple[int, int, Engine]],
    gaps: Sequence[tuple[int, int]],
    idle: int,
) -> dict[str, int]:
    """Attribute idle slots.

    A semaphore is whoever's signals it last before the one that waits, in the program's order.

    Parameters
    ----------
    program
        The instructions, which tell who signals what.
    passages
        Of all the front end's instructions.
    blocked
        When the scheduler had an instruction for which its engine's queue had no place: the first
        such cycle, the one behind the last, the engine.
    gaps
        For each product the last row before it, and the cycle before its own first.
    idle
        All idle slots.

    Returns
    -------
    dict
        Idle slots by whom they are lost to, in the order of `Lost`; their sum is `idle`.
    """
    latency = LEAVE_TO_OFFER + TILER_PERIOD + config.columns
    lefts = [p.left for p in passages if p.instruction.opcode != Opcode.SYNC]
    lost = dict.fromkeys(Lost, 0)
    late = _late(passages, blocked, _owners(program))
    low, high, cause = next(late, (0, 0, Lost.FETCH))
    for (last, before), left in zip(gaps[1:], lefts[1:], strict=True):
        first, end = last + 1 - latency, min(before + 1 - latency, left)
        while True:
            lost[cause] += max(0, min(high, end) - max(low, first))
            if high >= end:
                break
            following = next(late, None)
            if following is None:
                break
            low, high, cause = following
    lost[Lost.MATMUL] += idle - sum(lost.values())
    return {who.name.lower(): slots for who, slots in lost.items()}


def _owners(program: Sequence[Instruction]) -> Iterator[dict[int, Lost]]:
    """Whose the semaphores are that each instruction of the front end waits for."""
    # What nobody signals before is the first one's who does.
    owners = {semaphore: who for i in reversed(program) for semaphore, who in _signals(i).items()}
    for i in program:
        if i.engine == Engine.MATMUL:
            yield {semaphore: owners[semaphore] for semaphore in i.waits}
        owners |= _signals(i)


def _signals(i: Instruction) -> dict[int, Lost]:
    """The semaphores that an instruction signals, and its engine."""
    if i.engine is None:
        return {}
    return dict.fromkeys((*i.signals, *([] if i.early is None else [i.early])), Lost[i.engine.name])


def _late(
    passages: Iterable[Passage],
    blocked: Iterable[tuple[int, int, Engine]],
    owners: Iterable[dict[int, Lost]],
) -> Iterator[Interval]:
    """When and why the front end has nothing to let go, in the order of time."""
    queues = iter(blocked)
    delay = FIFO + ENTER_TO_GRANT
    full = next(queues, None)
    free = 0
    for p, signalling in zip(passages, owners, strict=True):
        while free <= p.entered:
            while full is not None and full[1] + delay <= free:
                full = next(queues, None)
            end, cause = p.entered + 1, Lost.FETCH
            if full is not None and full[0] + delay <= free:
                end, cause = min(end, full[1] + delay), Lost[full[2].name]
            elif full is not None:
                end = min(end, full[0] + delay)
            yield free, end, cause
            free = end
        cycle = p.entered + ENTER_TO_GRANT
        for semaphore in p.instruction.waits:
            token = p.tokens[semaphore]
            if token > cycle:
                yield cycle, token, signalling[semaphore]
                cycle = token
        free = p.passed + 1
