# SPDX-License-Identifier: Apache-2.0
"""The ways to DRAM: the read port with its arbiter, program fetch, LOAD and STORE.

Bursts of reads are answered in the order of their requests, one beat a cycle, the first one
`dram_latency` cycles after its request.  Fetch and LOAD share the port; what LOAD cannot take holds
up what comes behind it.
"""

from afternorm.config import Config
from afternorm.cycles.kernel import Process, Steps, Waiters
from afternorm.cycles.machine import Machine
from afternorm.cycles.ports import ALL_BANKS, next_free
from afternorm.cycles.timing import BURST, BURSTS_AHEAD, BURSTS_UNSENT, FIFO, RUN, SCRATCHPAD
from afternorm.cycles.unit import Unit
from afternorm.isa import INSTRUCTION_BYTES, Instruction, Target
from afternorm.memory_map import EXPONENT_BYTES, float_word_bytes

_LOAD_WRITE, _STORE_READ = 3, 4
"""Priorities at the scratchpad's ports: LOAD writes and STORE reads after all engines."""
_DMA = 2
"""Priority at the vector memory's ports: after the vector engine."""
_ARBITER = 2
"""Cycles from a request that is taken to the next one, of reads and of writes."""
_NEVER = 1 << 60
_WORDS = 8
"""Words that wait between beats and memories."""


class ReadPort:
    """Reads of DRAM."""

    def __init__(self, machine: Machine) -> None:
        self.latency = machine.dram_latency
        self.kernel = machine.kernel
        self.free = 0
        """The cycle of the next beat that is not promised."""
        self.first = 0
        """The first beat of the burst that was taken last."""
        self._arbiter = 0
        self._fetch = _NEVER
        self._ends: list[int] = [0] * (BURSTS_AHEAD + 1)  # of the bursts that are not forgotten

    def request(self, offered: int, beats: int, cycles: int, *, fetch: bool = False) -> Steps:
        """Request a burst from a cycle on; when it is taken.  Fetch goes first.

        `cycles` is what its beats take at least, one after the other.
        """
        if fetch:
            self._fetch = offered
        while True:
            taken = max(offered, self._arbiter, self._ends[0] + 1)
            yield taken
            if taken < max(self._arbiter, self._ends[0] + 1):
                continue
            if fetch or self._fetch > taken:
                break
            yield taken + _ARBITER
        if fetch:
            self._fetch = _NEVER
        self._arbiter = taken + _ARBITER
        self.first = max(taken + 1 + self.latency, self.free)
        self.free = self.first + max(beats, cycles)
        del self._ends[0]
        self._ends.append(self.free - 1)
        return taken


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
        self._end = _NEVER

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
            taken = yield from self.port.request(issue + 1, count * self.beats, 0, fetch=True)
            first = self.port.first
            self.available += [first + n * self.beats - 1 + FIFO for n in range(1, count + 1)]
            self.kernel.wake(self.arrivals)
            time, clear = issue + 1, taken + 1


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

    def runs(self, i: Instruction) -> list[tuple[int, int, int, int, int, int]]:
        """Runs: cycles to the first burst, words, first word; beats, steps, beats of exponents."""
        floats = i["target"] == Target.FLOATS
        size = self.float_bytes if floats else self.config.block
        span = max(1, size // self.beat)
        limit = min(RUN, BURST // span)
        result = []
        for tile in range(1 if i["shared"] else self.config.tiles):
            dram = i["dram"] + tile * i["dram_tile"]
            exponents = i["exponents"] + tile * i["exponents_tile"]
            for first in range(0, i["count"], limit):
                words = min(limit, i["count"] - first)
                beats = self.beats(dram + first * size, words, size)
                extra = 0
                if not floats:
                    at = exponents + first * EXPONENT_BYTES
                    extra = self.beats(at, words, EXPONENT_BYTES)
                base = i["base"] + first
                result.append(
                    (3 + (tile > 0 and not first), words, base, beats, words * span, extra)
                )
        return result


class Load(Unit):
    """The load engine."""

    FROM_BEAT = 5
    """Cycles from a beat to the write of its first word."""

    def __init__(self, machine: Machine, port: ReadPort) -> None:
        super().__init__(machine)
        self.port = port
        self.bursts = _Bursts(machine.config)
        self._ends = [-1] * (BURSTS_AHEAD + 1)
        self._free = 0

    def execute(self, i: Instruction, offered: int) -> Steps:
        """Execute an instruction that is offered from a cycle on; when it is accepted."""
        m, port = self.machine, self.port
        accepted = max(offered, self._free)
        floats = i["target"] == Target.FLOATS
        memory = m.vector_writes if floats else m.writes
        priority = _DMA if floats else _LOAD_WRITE
        time = accepted
        if i.drain:
            time = max(time, self.finished)
        for before, words, _, beats, steps, extra in self.bursts.runs(i):
            time += before
            if extra:
                time = 1 + (yield from self._request(time, extra, 0))
            taken = yield from self._request(time, beats, steps)
            first = port.first
            pace = max(beats, steps) / words
            wanted = first + self.FROM_BEAT + int((words - 1) * pace)
            last = wanted
            uses = memory.others(priority, first)
            if uses:
                written = first + self.FROM_BEAT - 1
                for n in range(words):
                    arrived = first + self.FROM_BEAT + int(n * pace)
                    written = next_free(uses, max(arrived, written + 1))
                last = written
            port.free += max(0, last - wanted - _WORDS)
            end = max(last, first + max(beats, steps) + self.FROM_BEAT - 1)
            time = taken
        self._free = time + 1
        self.complete(i, end)
        return accepted

    def _request(self, offered: int, beats: int, cycles: int) -> Steps:
        """Request a burst, when what comes with it has room; when it is taken."""
        offered = max(offered, self._ends[0] + 2)
        taken = yield from self.port.request(offered, beats, cycles)
        del self._ends[0]
        self._ends.append(self.port.free - 1)
        return taken


class Store(Unit):
    """The store engine."""

    TO_DRAM = 2
    """Cycles from the making of a beat to DRAM."""
    FROM_READ = SCRATCHPAD + 1 + FIFO
    """Cycles from the read of a word to its way into a beat."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.bursts = _Bursts(machine.config)
        self._free = 0
        self._read_end = -1
        self._requested = -_ARBITER
        self._begun = [-1] * BURSTS_UNSENT
        self._written = [-1] * BURSTS_AHEAD
        self._packed = -1

    def execute(self, i: Instruction, offered: int) -> Steps:
        """Execute an instruction that is offered from a cycle on; when it is accepted."""
        m = self.machine
        accepted = max(offered, self._free)
        floats = i["target"] == Target.FLOATS
        memory = m.vector_reads if floats else m.third
        priority = _DMA if floats else _STORE_READ
        time = accepted
        if i.drain:
            time = max(time, self.finished)
        for before, words, base, _, steps, extra in self.bursts.runs(i):
            request = self._request(max(time + before, self._read_end + 1))
            yield request
            span = steps // words
            banks = ALL_BANKS if floats else m.banks(base, base + words - 1)
            uses = memory.others(priority, request, banks)
            last = next_free(uses, request + 1)
            begin = max(last + self.FROM_READ, self._packed + 1)
            for _ in range(words - 1):
                last = next_free(uses, last + 1)
            packed = max(begin + steps, last + self.FROM_READ + span) - 1
            # Only so many words are read ahead.
            self._read_end = max(last, packed + 1 - _WORDS * span)
            self._end_burst(request, packed)
            time = request
            if extra:
                time = self._request(request + 1)
                self._end_burst(time, packed + extra)
        self._free = time + 1
        self.complete(i, self._packed + self.TO_DRAM + m.dram_latency)
        return accepted

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
