# SPDX-License-Identifier: Apache-2.0
"""What the model's engines share: sizes, latencies, ports, semaphores, and counts of time."""

from heapq import heappush

from afternorm.config import Config
from afternorm.cycles.kernel import Kernel, Waiters
from afternorm.cycles.ports import Port
from afternorm.cycles.timing import SEMAPHORE, Timing


class Machine:
    """The state that is not one engine's own.

    Attributes
    ----------
    third : the scratchpad's shared read port; A and B of products go before it, by bank.
    writes : the scratchpad's write port.
    vector_reads, vector_writes : the vector memory's ports.
    tokens : cycles from which semaphores may be taken.
    waiters : processes that wait for a semaphore.
    """

    def __init__(self, config: Config, timing: Timing, dram_latency: int, hops: int) -> None:
        self.config = config
        self.timing = timing
        self.dram_latency = dram_latency
        self.hops = hops
        self.kernel = Kernel()
        self.third = Port(self.kernel)
        self.writes = Port(self.kernel)
        self.vector_reads = Port(self.kernel)
        self.vector_writes = Port(self.kernel)
        self.tokens: list[list[int]] = [[] for _ in range(64)]
        self.waiters: list[Waiters] = [[] for _ in range(64)]
        self._bank_bits = (config.scratchpad_depth // config.scratchpad_banks).bit_length() - 1

    def signal(self, semaphore: int, cycle: int) -> None:
        """A semaphore is signalled in `cycle`."""
        heappush(self.tokens[semaphore], cycle + SEMAPHORE)
        self.kernel.wake(self.waiters[semaphore])

    def bank(self, address: int) -> int:
        """The scratchpad's bank of an address."""
        return address >> self._bank_bits

    def banks(self, low: int, high: int) -> int:
        """The set of banks that hold the addresses from `low` to `high`."""
        first, last = low >> self._bank_bits, high >> self._bank_bits
        return (2 << last) - (1 << first)
