# SPDX-License-Identifier: Apache-2.0
"""The ways to DRAM: the read port with its arbiter, program fetch, LOAD and STORE.

Bursts of reads are answered in the order of their requests, one beat a cycle, the first one
`dram_latency` cycles after its request.  Fetch and LOAD share the port; what LOAD cannot take holds
up what comes behind it.

A long LOAD is a stream of runs that are alike.  Where one leaves everything as it was before, but
for the time, and nothing else happens, so does the next one: they are skipped, which changes no
cycle.
"""

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from afternorm.config import Config
from afternorm.cycles.kernel import NEVER, Process, Steps, Waiters
from afternorm.cycles.machine import Machine
from afternorm.cycles.ports import ALL_BANKS, Port, next_free
from afternorm.cycles.timing import BURST, BURSTS_AHEAD, BURSTS_UNSENT, FIFO, RUN, SCRATCHPAD
from afternorm.cycles.unit import Working
from afternorm.isa import INSTRUCTION_BYTES, Instruction, Target
from afternorm.memory_map import EXPONENT_BYTES, float_word_bytes

_LOAD_WRITE, _STORE_READ = 3, 4
"""Priorities at the scratchpad's ports: LOAD writes and STORE reads after all engines."""
_DMA = 2
"""Priority at the vector memory's ports: after the vector engine."""
_ARBITER = 2
"""Cycles from a request that is taken to the next one, of reads and of writes."""
_WORDS = 8
"""Words that wait between beats and memories."""
_State = tuple[object, ...]
"""Cycles, relative to one, and sizes."""


class Burst(NamedTuple):
    """A burst of reads on its way.

    Attributes
    ----------
    taken : when its request was.
    receive : takes its beats from the cycle on in which the first one comes; returns from which
        cycle on the next burst's may come.
    shape : all else that time depends on; empty if the burst is one of a kind.
    """

    taken: int
    receive: Callable[[int], Steps]
    shape: tuple[int, ...]


class ReadPort:
    """Reads of DRAM: requests of two sides, and bursts that are answered one after the other.

    Attributes
    ----------
    process : answers burst by burst.
    """

    def __init__(self, machine: Machine) -> None:
        self.latency = machine.dram_latency
        self.kernel = machine.kernel
        self._arbiter = 0
        self._fetch = NEVER
        self._ends: deque[int] = deque([0] * (BURSTS_AHEAD + 1))
        """Last beats of bursts, of which so many are forgotten as there are requests."""
        self._bursts: deque[Burst] = deque()
        self._requests: Waiters = []
        self._answers: Waiters = []
        self.process = self._run()

    def request(
        self,
        offered: int,
        receive: Callable[[int], Steps],
        *,
        shape: tuple[int, ...] = (),
        fetch: bool = False,
    ) -> Steps:
        """Request a burst from a cycle on; when it is taken.  Fetch goes first."""
        if fetch:
            self._fetch = offered
        while True:
            while not self._ends:
                yield self._answers
            taken = max(offered, self._arbiter, self._ends[0] + 1)
            yield taken
            if not self._ends or taken < max(self._arbiter, self._ends[0] + 1):
                continue
            if fetch or self._fetch > taken:
                break
            yield taken + _ARBITER
        if fetch:
            self._fetch = NEVER
        self._arbiter = taken + _ARBITER
        self._ends.popleft()
        self._bursts.append(Burst(taken, receive, shape))
        self.kernel.wake(self._requests)
        return taken

    def state(self, cycle: int) -> _State | None:
        """What requests from a cycle on meet; None if it does not repeat."""
        if self._fetch != NEVER or not all(burst.shape for burst in self._bursts):
            return None
        return (
            self._arbiter - cycle,
            tuple(max(-1, end - cycle) for end in self._ends),
            tuple((burst.taken - cycle, burst.shape) for burst in self._bursts),
        )

    def delay(self, cycles: int) -> None:
        """Move all that is known by some cycles."""
        self._arbiter += cycles
        self._ends = deque(end + cycles for end in self._ends)
        self._bursts = deque(burst._replace(taken=burst.taken + cycles) for burst in self._bursts)

    def _run(self) -> Process:
        """Answer burst by burst."""
        free = 0
        while True:
            while not self._bursts:
                yield self._requests
            burst = self._bursts.popleft()
            first = max(burst.taken + 1 + self.latency, free)
            free = yield from burst.receive(first)
            self._ends.append(free - 1)
            self.kernel.wake(self._answers)


class Fetch:
    """Program fetch: up to `fetch_depth` instructions ahead of their turn."""

    def __init__(self, machine: Machine, port: ReadPort) -> None:
        self.port = port
        self.kernel = machine.kernel
        self.depth = machine.config.fetch_depth
        self.beats = 8 * INSTRUCTION_BYTES // machine.config.dram_width
        self.longest = min(self.depth, 255 // self.beats)
        self.available: list[int] = []
        self.arrivals: Waiters = []
        self._handed: list[int] = []
        self._room: Waiters = []
        self._end = NEVER

    def hand(self, cycle: int) -> None:
        """An instruction is taken in `cycle`."""
        self._handed.append(cycle)
        self.kernel.wake(self._room)

    def end(self, cycle: int) -> None:
        """END is taken in `cycle`: nothing is asked for after it."""
        self._end = cycle
        self.kernel.wake(self._room)

    def run(self) -> Process:
        """Ask for instructions, from the start on."""
        time, asked, clear = 2, 0, 0
        handed = self._handed
        while time < self._end:
            yield time
            free = 0
            while free < len(handed) and handed[-1 - free] >= time:
                free += 1
            room = self.depth - asked + len(handed) - free
            if not room:
                if free:
                    time = handed[-free] + 1
                else:
                    yield self._room
                    if handed:
                        time = max(time, handed[-1] + 1)
                continue
            count = min(room, self.longest)
            issue = max(time + 1, clear)
            yield issue
            if issue > self._end:
                break
            asked += count
            receive = partial(self._receive, count)
            taken = yield from self.port.request(issue + 1, receive, fetch=True)
            time, clear = issue + 1, taken + 1

    def _receive(self, count: int, first: int) -> Steps:
        """The beats of some instructions, which nothing holds up."""
        self.available += [first + n * self.beats - 1 + FIFO for n in range(1, count + 1)]
        self.kernel.wake(self.arrivals)
        yield first
        return first + count * self.beats


class _Runs(NamedTuple):
    """Runs of a transfer that differ in their place alone, one after the other.

    Attributes
    ----------
    before : cycles to the first burst of each.
    alike : how many they are.
    base : the first one's first word.
    words, beats, steps : of each.
    extra : beats of its exponents.
    """

    before: int
    alike: int
    base: int
    words: int
    beats: int
    steps: int
    extra: int


class _Bursts:
    """The bursts of LOADs or STOREs: their lengths, and the cycles in which they are made."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.beat = config.dram_width // 8
        self.float_bytes = float_word_bytes(config)

    def beats(self, address: int, words: int, size: int) -> int:
        """Beats of a burst of `words`, `size` bytes each."""
        if size > self.beat:
            return words * (size // self.beat)
        return (address % self.beat + words * size + self.beat - 1) // self.beat

    def runs(self, i: Instruction) -> list[_Runs]:
        """The runs of a transfer, those that are alike together.

        All but the last run of a tile are: their bytes are a multiple of the widest beat's, so
        they begin at the same place within a beat.
        """
        floats = i["target"] == Target.FLOATS
        size = self.float_bytes if floats else self.config.block
        span = max(1, size // self.beat)
        limit = min(RUN, BURST // span)
        full, rest = divmod(i["count"], limit)
        result = []
        for tile in range(1 if i["shared"] else self.config.tiles):
            dram = i["dram"] + tile * i["dram_tile"]
            exponents = i["exponents"] + tile * i["exponents_tile"]
            # A tile's addresses are made in a cycle of their own.
            first = min(1, full) if tile else 0
            for start, words, count in (
                (0, limit, first),
                (first * limit, limit, full - first),
                (full * limit, rest, min(1, rest)),
            ):
                if count:
                    extra = 0
                    if not floats:
                        at = exponents + start * EXPONENT_BYTES
                        extra = self.beats(at, words, EXPONENT_BYTES)
                    before = 3 + (tile > 0 and not start)
                    beats = self.beats(dram + start * size, words, size)
                    base = i["base"] + start
                    result.append(_Runs(before, count, base, words, beats, words * span, extra))
        return result


class Load(Working):
    """The load engine: requests, beats that become words, and words that are written.

    A beat makes a word or several, or several make one: a step a cycle each.  Words wait in a
    queue while other engines write, and steps while the queue is full.
    """

    TO_WRITE = 4
    """Cycles from a word's last step to its write."""

    def __init__(self, machine: Machine, port: ReadPort) -> None:
        super().__init__(machine)
        self.port = port
        self.bursts = _Bursts(machine.config)
        self._begun = 0
        self._ends: deque[int] = deque([-1] * (BURSTS_AHEAD + 1))
        self._answers: Waiters = []
        self._queue: deque[tuple[int, bool]] = deque()
        """Words whose writes are not known: the last step of each, whether they are floats."""
        self._written: deque[int] = deque([-1] * _WORDS, _WORDS)
        """The writes before those."""
        self._count = 0
        """All writes that are known."""
        self._ending: deque[tuple[Instruction, int]] = deque()
        """Instructions that end when so many writes are known."""
        self._endings: Waiters = []
        self._coming: tuple[int, ...] = ()
        """The shape of the burst whose beats come, if nothing held them up so far."""
        self._first = 0
        """Its first beat."""

    def processes(self) -> Iterable[Process]:
        """Requests, and the ends of instructions; the port has beats received."""
        return *super().processes(), self._end()

    def work(self, i: Instruction, accepted: int) -> Process:
        """Request; the next instruction is accepted when this one's bursts are requested."""
        time = accepted
        if i.drain:
            while len(self.done) < self._begun:
                yield self.changes
            time = max(time, self.finished)
        self._begun += 1
        floats = i["target"] == Target.FLOATS
        groups = self.bursts.runs(i)
        for runs in groups:
            steps, rest = max(runs.beats, runs.steps), runs.alike
            state: _State | None = None
            begun = time
            while rest:
                if rest > 1:
                    before, state = state, self._state(floats, time, runs.extra + steps)
                    if state is not None and state == before:
                        skipped = self._skip(time - begun, runs.words, rest - 1)
                        time += skipped * (time - begun)
                        rest -= skipped
                    begun = time
                rest -= 1
                time += runs.before
                if runs.extra:
                    time = 1 + (yield from self._request(time, floats, runs.extra))
                ends = None if rest or runs is not groups[-1] else i
                time = yield from self._request(time, floats, steps, runs.words, ends)
        self.release(time + 1)

    def _state(self, floats: bool, cycle: int, least: int) -> _State | None:
        """All that a run which begins in `cycle`, and those behind it, depend on.

        None if others may do something in less than `least` cycles, or want the memory.
        """
        m, port = self.machine, self.port
        now = m.kernel.now
        if not self._coming or self._ending or m.kernel.alone(port.process) - now <= least:
            return None
        memory, priority = self._memory(floats)
        if memory.others(priority, self._first - self.TO_WRITE):
            return None
        asked = port.state(cycle)
        if asked is None:
            return None
        return (
            now - cycle,
            self._first - cycle,
            self._coming,
            asked,
            tuple(max(-2, end - cycle) for end in self._ends),
            tuple((step - cycle, kind) for step, kind in self._queue),
            tuple(write - cycle for write in self._written),
        )

    def _skip(self, period: int, words: int, most: int) -> int:
        """Skip up to `most` runs of so many cycles and words; how many nothing interferes with."""
        kernel, port = self.machine.kernel, self.port
        count = min(most, (kernel.alone(port.process) - 1 - kernel.now) // period)
        if count <= 0:
            return 0
        cycles = count * period
        kernel.skip(cycles, port.process)
        port.delay(cycles)
        self._first += cycles
        self._ends = deque(end + cycles for end in self._ends)
        self._queue = deque((step + cycles, kind) for step, kind in self._queue)
        self._written = deque((write + cycles for write in self._written), _WORDS)
        self._count += count * words
        return count

    def _request(
        self,
        offered: int,
        floats: bool,
        steps: int,
        words: int = 0,
        ends: Instruction | None = None,
    ) -> Steps:
        """Request a burst, when what comes with it has room; when it is taken."""
        while not self._ends:
            yield self._answers
        offered = max(offered, self._ends.popleft() + 2)
        receive = partial(self._receive, floats, steps, words, ends)
        shape = (floats, steps, words) if ends is None else ()
        return (yield from self.port.request(offered, receive, shape=shape))

    def _receive(
        self, floats: bool, steps: int, words: int, ends: Instruction | None, first: int
    ) -> Steps:
        """A burst's beats from a cycle on; from when on the next burst's may come."""
        self._first = first
        self._coming = (floats, steps, words) if ends is None else ()
        yield first + steps
        first, self._coming = self._first, ()
        last = first + steps
        memory, priority = self._memory(floats)
        queue, written = self._queue, self._written
        late = bool(queue) and written[-1] >= queue[0][0] + self.TO_WRITE
        if late or memory.others(priority, first - self.TO_WRITE):
            last = first
            for _ in range(words):
                room = yield from self._room()
                last = max(last + 1, room) + steps // words - 1
                queue.append((last, floats))
            if not words:
                room = yield from self._room()
                last = max(last + 1, room) + steps - 1
        elif words:
            span = steps // words
            if words >= self.TO_WRITE + _WORDS:
                # Nothing but the last words' writes matters any more.
                while queue:
                    self._write(queue[0][0] + self.TO_WRITE)
                rest = self.TO_WRITE + _WORDS
                self._count += words - rest
                words = rest
            queue.extend((last - n * span, floats) for n in reversed(range(words)))
            while queue[0][0] + self.TO_WRITE <= last:
                self._write(queue[0][0] + self.TO_WRITE)
        if ends is not None:
            self._ending.append((ends, self._count + len(queue)))
            self.machine.kernel.wake(self._endings)
        self._ends.append(last - 1)
        self.machine.kernel.wake(self._answers)
        return last

    def _memory(self, floats: bool) -> tuple[Port, int]:
        """Where words go, and the priority there."""
        m = self.machine
        return (m.vector_writes, _DMA) if floats else (m.writes, _LOAD_WRITE)

    def _room(self) -> Steps:
        """From when on the next word has a place in the queue."""
        while len(self._queue) >= _WORDS:
            yield from self._next_write()
        return self._written[len(self._queue)] + 1

    def _next_write(self) -> Process:
        """Wait until the write of the queue's first word is known."""
        number, (step, floats) = self._count, self._queue[0]
        memory, priority = self._memory(floats)
        cycle = max(step + self.TO_WRITE, self._written[-1] + 1)
        while number == self._count:
            cycle = next_free(memory.others(priority, cycle), cycle)
            if cycle <= self.machine.kernel.now:
                self._write(cycle)
            else:
                yield cycle

    def _write(self, cycle: int) -> None:
        """The queue's first word is written."""
        self._queue.popleft()
        self._written.append(cycle)
        self._count += 1
        if self._ending and self._ending[0][1] == self._count:
            self.complete(self._ending.popleft()[0], cycle)

    def _end(self) -> Process:
        """See to it that the ends of instructions become known."""
        while True:
            while not self._ending:
                yield self._endings
            yield from self._next_write()


class Store(Working):
    """The store engine."""

    TO_DRAM = 2
    """Cycles from the making of a beat to DRAM."""
    FROM_READ = SCRATCHPAD + 1 + FIFO
    """Cycles from the read of a word to its way into a beat."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.bursts = _Bursts(machine.config)
        self._read_end = -1
        self._requested = -_ARBITER
        self._begun = [-1] * BURSTS_UNSENT
        self._written = [-1] * BURSTS_AHEAD
        self._packed = -1

    def work(self, i: Instruction, accepted: int) -> Process:
        """Store; the next instruction is accepted when this one's bursts are requested."""
        m = self.machine
        floats = i["target"] == Target.FLOATS
        memory = m.vector_reads if floats else m.third
        priority = _DMA if floats else _STORE_READ
        time = accepted
        if i.drain:
            time = max(time, self.finished)
        for runs in self.bursts.runs(i):
            for number in range(runs.alike):
                request = self._request(max(time + runs.before, self._read_end + 1))
                yield request
                words, base = runs.words, runs.base + number * runs.words
                banks = ALL_BANKS if floats else m.banks(base, base + words - 1)
                packed = yield from self._read(
                    memory, priority, banks, request, words, runs.steps // words
                )
                self._end_burst(request, packed)
                time = request
                if runs.extra:
                    time = self._request(request + 1)
                    self._end_burst(time, packed + runs.extra)
        self.complete(i, self._packed + self.TO_DRAM + m.dram_latency)
        self.release(time + 1)

    def _read(
        self, memory: Port, priority: int, banks: int, request: int, words: int, span: int
    ) -> Steps:
        """When the last of a burst's words, `span` cycles each, is packed."""
        last, end = request, self._packed
        # Only so many words are read ahead of those that are packed.
        packed = deque([-1] * _WORDS, _WORDS)
        while words:
            part = min(words, _WORDS)
            words -= part
            # Who goes before, in the cycles of these reads, is known when they are over.
            yield max(last + part, packed[part - 1] + 1)
            since, uses = last, memory.others(priority, last, banks)
            for _ in range(part):
                last = next_free(uses, max(last, packed[0]) + 1)
                while last > memory.kernel.now:
                    yield last
                    uses = memory.others(priority, since, banks)
                    last = next_free(uses, last)
                end = max(end + 1, last + self.FROM_READ) + span - 1
                packed.append(end)
        self._read_end = last
        return end

    def _request(self, offered: int) -> int:
        """When a burst is requested."""
        request = max(offered, self._requested + _ARBITER, self._begun[0] + 1, self._written[0] + 1)
        self._requested = request
        return request

    def _end_burst(self, request: int, packed: int) -> None:
        """A burst is begun when the one before is, and its beats are made up to `packed`."""
        del self._begun[0], self._written[0]
        self._begun.append(max(request + FIFO, self._packed))
        self._written.append(packed + self.TO_DRAM + self.machine.dram_latency)
        self._packed = packed
