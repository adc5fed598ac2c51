# SPDX-License-Identifier: Apache-2.0
"""Gives buffers their places in the memories, and moves what does not fit to and from DRAM.

There are two plans:

`fixed_plan`
    Every buffer has a place of its own for the whole program; what it holds from
    the beginning is put there by the host.  For single operations and layers.
`streamed_plan`
    For whole models.  Buffers with a `base` (caches, weights that stay) keep it.
    Intermediate results share an arena: a place is given away when its buffer was
    used for the last time, the one that has been free for longest first, so that
    nobody waits for it.  Those that are read as B have one of their own, in other banks
    than A's if there is room.  Constants with a home in DRAM pass through a ring: each
    is loaded into the space of the oldest ones as soon as the last use of those is
    past, long before it is needed, so the array works while they stream.  A
    constant that is still there when it is used again is not loaded again.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from afternorm.compiler.accesses import Memory, words
from afternorm.compiler.buffers import Buffer, round_up
from afternorm.config import Config
from afternorm.errors import CapacityError
from afternorm.isa import Opcode, Operand, Pair, Source, Target

PLACED = (Memory.SCRATCHPAD, Memory.VECTOR)
UNITS = {Memory.SCRATCHPAD: "scratchpad blocks", Memory.VECTOR: "vector memory words"}
_ARENA_PEAKS = 2
"""The arena is so many times what lives at once, if the constants leave so much."""
_RING_SHARE = 4
"""The ring gets a quarter of a memory at least, if the constants are more than that."""


@dataclass
class Operation:
    """An instruction whose scratchpad and vector memory addresses are virtual."""

    opcode: Opcode
    fields: dict[str, int]

    def addresses(self) -> list[tuple[str, Memory]]:
        """The fields that are addresses, and of which memory."""
        get = self.fields.get
        blocks, floats = Memory.SCRATCHPAD, Memory.VECTOR
        if self.opcode == Opcode.VECTOR:
            rotates = get("pair", 0) == Pair.ROTATE
            source = get("source", 0)
            some = {
                "x_base": (blocks if source == Source.BLOCKS else floats, source != Source.ACC),
                "p_base": (floats, get("a", 0) == Operand.VECTOR or rotates),
                "q_base": (floats, get("b", 0) == Operand.VECTOR or rotates),
                "y_base": (floats, get("to_vector", 0)),
                "m_base": (blocks, get("to_blocks", 0)),
            }
            return [(name, memory) for name, (memory, used) in some.items() if used]
        if self.opcode in (Opcode.LOAD, Opcode.STORE):
            return [("base", blocks if get("target", 0) == Target.BLOCKS else floats)]
        names = {
            Opcode.MATMUL: ("a_base", "b_base"),
            Opcode.EXP: ("p_base",),
            Opcode.SCAN: ("a_base",),
            Opcode.GATHER: ("src_base", "dst_base"),
        }
        return [(name, blocks) for name in names.get(self.opcode, ())]


class Buffers:
    """All buffers of a program, found by virtual address."""

    def __init__(self) -> None:
        self._buffers: list[Buffer] = []
        self._starts: list[int] = []

    def add(self, memory: Memory, size: int, *, high: bool = False) -> Buffer:
        """A new buffer behind all others."""
        start = self._starts[-1] + self._buffers[-1].size if self._buffers else 0
        buffer = Buffer(memory, start, size, high)
        self._buffers.append(buffer)
        self._starts.append(start)
        return buffer

    def at(self, address: int) -> Buffer:
        """The buffer that has a virtual address."""
        return self._buffers[bisect_right(self._starts, address) - 1]

    def __iter__(self) -> Iterator[Buffer]:
        return iter(self._buffers)

    def __len__(self) -> int:
        return len(self._buffers)

    def truncate(self, length: int) -> None:
        """Forget all but the first `length`."""
        del self._buffers[length:], self._starts[length:]


@dataclass
class Plan:
    """A program with real addresses.

    Attributes
    ----------
    operations : in sequential order.
    used : words of each memory that are in use at most.
    """

    operations: list[Operation]
    used: dict[Memory, int] = field(default_factory=dict)


def fixed_plan(config: Config, buffers: Iterable[Buffer]) -> dict[Memory, int]:
    """Give each of `buffers` its `base`: low ones from 0 up, high ones from the top down.

    Returns
    -------
    dict
        The words that each memory needs.
    """
    used = {}
    for memory in PLACED:
        low = high = 0
        for buffer in buffers:
            if buffer.memory != memory:
                continue
            if buffer.high:
                high += buffer.size
                buffer.base = words(config, memory) - high
            else:
                buffer.base = low
                low += buffer.size
        used[memory] = low + high
    return used


def translate(buffers: Buffers, operations: Sequence[Operation]) -> list[Operation]:
    """The operations with real addresses, where every buffer has its `base`."""
    result = []
    for operation in operations:
        fields = dict(operation.fields)
        for name, _ in operation.addresses():
            buffer = buffers.at(fields[name])
            assert buffer.base is not None
            fields[name] += buffer.base - buffer.start
        result.append(Operation(operation.opcode, fields))
    return result


def load(buffer: Buffer, base: int) -> Operation:
    """The LOAD that brings a buffer from its home to `base`."""
    home = buffer.home
    assert home is not None
    return Operation(
        Opcode.LOAD,
        {
            "target": Target.BLOCKS if buffer.memory == Memory.SCRATCHPAD else Target.FLOATS,
            "count": buffer.size,
            "base": base,
            "shared": int(home.shared),
            "dram": home.dram,
            "dram_tile": home.dram_tile,
            "exponents": home.exponents,
            "exponents_tile": home.exponents_tile,
        },
    )


def streamed_plan(config: Config, buffers: Buffers, operations: Sequence[Operation]) -> Plan:
    """Places for a program of a whole model; see the module's text.

    Buffers with a `base` must lie without gaps: high ones at the top of their memory, others
    from 0 on.

    Raises
    ------
    CapacityError
        If something does not fit; with what is needed.
    """
    used: list[list[tuple[str, Buffer]]] = [
        [(name, buffers.at(operation.fields[name])) for name, _ in operation.addresses()]
        for operation in operations
    ]
    plan = Plan([])
    places: list[dict[Buffer, int]] = [{} for _ in operations]
    loads: dict[int, list[Operation]] = {}
    # The program's input comes before the constants: all else waits for it.
    inputs = len(list(takewhile(lambda one: one.opcode == Opcode.LOAD, operations)))
    for memory in PLACED:
        free = _free(config, memory, buffers)
        _place(config, memory, inputs, free, used, places, loads, plan)
    plan.operations += loads.get(-1, [])
    for number, operation in enumerate(operations):
        fields = dict(operation.fields)
        for name, buffer in used[number]:
            base = places[number][buffer] if buffer.base is None else buffer.base
            fields[name] += base - buffer.start
        plan.operations.append(Operation(operation.opcode, fields))
        plan.operations += loads.get(number, [])
    return plan


def _free(config: Config, memory: Memory, buffers: Buffers) -> tuple[int, int]:
    """The free words: from the end of what stays low to the beginning of what stays high."""
    low, top = 0, words(config, memory)
    for buffer in buffers:
        if buffer.memory == memory and buffer.base is not None:
            if buffer.high:
                top = min(top, buffer.base)
            else:
                low = max(low, buffer.base + buffer.size)
    return low, top


def _place(
    config: Config,
    memory: Memory,
    inputs: int,
    free: tuple[int, int],
    used: list[list[tuple[str, Buffer]]],
    places: list[dict[Buffer, int]],
    loads: dict[int, list[Operation]],
    plan: Plan,
) -> None:
    """Plan one memory between what stays at its lower end and at its top: arenas, then the ring."""
    uses: dict[Buffer, list[int]] = {}
    for number, pairs in enumerate(used):
        for _, buffer in pairs:
            if buffer.memory != memory or buffer.base is not None:
                continue
            if not uses.get(buffer) or uses[buffer][-1] != number:
                uses.setdefault(buffer, []).append(number)
    results = {buffer: at for buffer, at in uses.items() if buffer.home is None}
    constants = {buffer: at for buffer, at in uses.items() if buffer.home is not None}
    total = sum(buffer.size for buffer in constants)
    largest = max((buffer.size for buffer in constants), default=0)
    low, top = free
    ring = min(total, max(2 * largest, (top - low) // _RING_SHARE))
    size = words(config, memory)
    bank = size // config.scratchpad_banks if memory == Memory.SCRATCHPAD else 1
    given = _arenas(results, free, ring, total, bank)
    if given is None:
        raise CapacityError(
            f"the program needs more than the {size} {UNITS[memory]} of a tile: "
            f"{low + size - top} for what stays, {ring} for what streams, "
            f"and {_peak(results)} for intermediate results"
        )
    bases, begin = given
    for buffer, base in bases.items():
        for number in results[buffer]:
            places[number][buffer] = base
    ahead = max(1, config.queue_depth // 2 - 1)
    end = _ring(constants, begin, top, ahead, inputs - 1, places, loads)
    plan.used[memory] = size - top + end


def _arenas(
    results: dict[Buffer, list[int]], free: tuple[int, int], ring: int, total: int, bank: int
) -> tuple[dict[Buffer, int], int] | None:
    """Places for intermediate results, and where constants may begin; None if they don't fit.

    What is read as A comes first, what is read as B behind it, if possible from another bank on, as
    constants and caches are B, too: an operand waits for the other one in its bank.
    """
    bottom, top = free
    sides = [{b: at for b, at in results.items() if b.high == high} for high in (False, True)]
    everything = [sum(buffer.size for buffer in side) for side in sides]
    peaks = [_peak(side) for side in sides]
    some = [min(most, _ARENA_PEAKS * peak) for most, peak in zip(everything, peaks, strict=True)]
    # Banks apart come first.  Then room to rest for every place, if all constants have room, too;
    # else, for some.
    for align, choices in (
        (bank, ((everything, total), (some, ring), (peaks, ring))),
        (1, ((everything, total), (some, ring))),
    ):
        for (low, high), rest in choices:
            begin = round_up(bottom + low, align)
            if begin + high + rest > top:
                continue
            first = _lifetimes(sides[0], bottom, min(bottom + everything[0], begin))
            second = _lifetimes(sides[1], begin, begin + high)
            if first is not None and second is not None:
                return first | second, begin + high
    end = min(bottom + sum(everything), top - ring)
    together = _lifetimes(results, bottom, end) if end >= bottom else None
    return None if together is None else (together, end)


def _peak(results: dict[Buffer, list[int]]) -> int:
    """The most words of buffers that are alive at once."""
    changes = sorted(
        [(at[0], 1, buffer.size) for buffer, at in results.items()]
        + [(at[-1], 2, -buffer.size) for buffer, at in results.items()]
    )
    alive = peak = 0
    for _, _, size in changes:
        alive += size
        peak = max(peak, alive)
    return peak


def _lifetimes(results: dict[Buffer, list[int]], low: int, high: int) -> dict[Buffer, int] | None:
    """Places in ``low .. high - 1`` for buffers, each while it is in use; None if they don't fit.

    The search goes on behind the last place that was given, so that a place rests
    before it is used again; where that does not fit, it begins at `low` each time.
    """
    for rotating in (True, False):
        given: dict[Buffer, int] = {}
        alive: list[tuple[int, int, Buffer]] = []
        cursor = low
        for buffer in sorted(results, key=lambda b: (results[b][0], b.start)):
            first = results[buffer][0]
            alive = [entry for entry in alive if results[entry[2]][-1] >= first]
            starts = [low] + [end for _, end, _ in alive]
            if rotating:
                starts = sorted([*starts, cursor], key=lambda at: ((at < cursor), at))
            else:
                starts.sort()
            for at in starts:
                end = at + buffer.size
                if end <= high and all(end <= begin or stop <= at for begin, stop, _ in alive):
                    given[buffer] = at
                    alive.append((at, end, buffer))
                    cursor = end
                    break
            else:
                break
        else:
            return given
    return None


def _ring(
    constants: dict[Buffer, list[int]],
    low: int,
    high: int,
    ahead: int,
    begin: int,
    places: list[dict[Buffer, int]],
    loads: dict[int, list[Operation]],
) -> int:
    """Places in ``low .. high - 1`` for constants, and their LOADs; the end of what is used.

    LOADs of a memory are `ahead` of their use at most, so that they fill no queue.  The first come
    after the operation `begin`.
    """
    order = sorted(
        (number, buffer.start, buffer) for buffer, at in constants.items() for number in at
    )
    there: list[tuple[int, int, Buffer, int]] = []
    """What the ring holds: first and last word plus 1, which constant, its last use so far."""
    firsts: list[int] = []
    """The first use after each LOAD."""
    head, last_load, most = low, begin, low
    for number, _, buffer in order:
        for index, (start, end, other, _) in enumerate(there):
            if other is buffer:
                there[index] = (start, end, buffer, number)
                places[number][buffer] = start
                break
        else:
            if head + buffer.size > high:
                head = low
            start, end = head, head + buffer.size
            gone = [entry for entry in there if entry[0] < end and start < entry[1]]
            there = [entry for entry in there if entry not in gone]
            after = max([last_load, *(entry[3] for entry in gone)])
            if len(firsts) >= ahead:
                after = max(after, firsts[-ahead])
            # Another operand of the same instruction must stay.
            assert after < number, "the ring is too small for the operands of an instruction"
            loads.setdefault(after, []).append(load(buffer, start))
            last_load = after
            firsts.append(number)
            there.append((start, end, buffer, number))
            places[number][buffer] = start
            head = end
            most = max(most, end)
    return most
