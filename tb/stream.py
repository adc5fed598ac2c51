# SPDX-License-Identifier: Apache-2.0
"""What every bench needs: parameters, clock and reset, drivers and monitors of streams.

Streams are Amaranth's, flattened: ``i__valid``, ``i__ready``, ``i__payload``;
a port is named by its prefix (``"i"``).  A payload is given and returned as
one int, whatever its layout.  All randomness comes from a `random.Random` made
from the seed, so a run can be repeated.

Everything is sampled on the rising edge, where flop outputs are still those of
the cycle that ends, and driven right after it.
"""

import json
import os
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, with_timeout

STALLS = (0.0, 0.3, 0.9)
"""Stall probabilities every stream bench runs with, on both sides: none, mild, heavy."""

PERIOD_NS = 10


def parameters() -> dict[str, Any]:
    """The parameters given to `tb.runner.Built.run`."""
    return dict(json.loads(os.environ.get("AFTERNORM_BENCH_PARAMETERS", "{}")))


def seed() -> int:
    """The seed given to `tb.runner.Built.run`."""
    return int(os.environ["COCOTB_RANDOM_SEED"])  # cocotb.RANDOM_SEED differs from test to test


def rng(name: str = "") -> random.Random:
    """A generator made from the seed and `name`, so that streams of one bench differ."""
    return random.Random(f"{seed()}/{name}")


async def start(dut: Any, *, reset_cycles: int = 2) -> None:
    """Start the clock (10 ns) and reset; returns right after the first edge out of reset.

    Designs without clock or reset are fine.  Drivers must have been made before, so that their
    ``valid`` is defined.
    """
    if not hasattr(dut, "clk"):
        return
    cocotb.start_soon(Clock(dut.clk, PERIOD_NS, unit="ns").start())
    if hasattr(dut, "rst"):
        dut.rst.value = 1
    await ticks(dut, reset_cycles)
    if hasattr(dut, "rst"):
        dut.rst.value = 0
    await ticks(dut, 1)


async def ticks(dut: Any, count: int = 1) -> None:
    """Wait for `count` rising edges."""
    for _ in range(count):
        await RisingEdge(dut.clk)


async def bounded(coroutine: Any, *, cycles: int) -> Any:
    """`coroutine`'s result; fails if it takes more than `cycles` cycles of simulated time."""
    return await with_timeout(coroutine, cycles * PERIOD_NS, "ns")


class Driver:
    """Sends payloads into a stream that the design consumes.

    Parameters
    ----------
    prefix
        Name of the stream's port.
    stall
        Probability that an idle driver waits another cycle before it offers the next payload.
    """

    def __init__(self, dut: Any, prefix: str, *, stall: float = 0.0) -> None:
        self._clk = dut.clk
        self._valid = getattr(dut, f"{prefix}__valid")
        self._ready = getattr(dut, f"{prefix}__ready", None)  # absent when always ready
        self._payload = getattr(dut, f"{prefix}__payload", None)
        self._stall = stall
        self._random = rng(f"driver {prefix}")
        self._queue: deque[int] = deque()
        self.prefix = prefix
        self.sent = 0
        """Payloads transferred."""
        self._valid.value = 0
        cocotb.start_soon(self._drive(getattr(dut, "rst", None)))

    def __len__(self) -> int:
        """Payloads not yet transferred."""
        return len(self._queue)

    def send(self, payloads: Iterable[int]) -> None:
        """Append `payloads` to what is to be sent."""
        self._queue.extend(int(payload) for payload in payloads)

    async def wait(self) -> None:
        """Wait until everything was transferred."""
        while self._queue:
            await RisingEdge(self._clk)

    async def _drive(self, rst: Any) -> None:
        offering = False
        while True:
            await RisingEdge(self._clk)
            if rst is not None and int(rst.value) == 1:
                offering = False
                self._valid.value = 0
                continue
            if offering and (self._ready is None or int(self._ready.value) == 1):
                self._queue.popleft()
                self.sent += 1
                offering = False
            if not offering:
                offering = bool(self._queue) and self._random.random() >= self._stall
                self._valid.value = int(offering)
                if offering and self._payload is not None:
                    self._payload.value = self._queue[0]


class Monitor:
    """Receives payloads from a stream that the design produces, and checks the contract.

    Valid and payload must hold until the transfer.

    Parameters
    ----------
    prefix
        Name of the stream's port.
    stall
        Probability that ``ready`` is low in a cycle.
    on_receive
        Called with each payload.
    """

    def __init__(
        self,
        dut: Any,
        prefix: str,
        *,
        stall: float = 0.0,
        on_receive: Callable[[int], None] | None = None,
    ) -> None:
        self._clk = dut.clk
        self._valid = getattr(dut, f"{prefix}__valid")
        self._ready = getattr(dut, f"{prefix}__ready", None)  # absent when always ready
        self._payload = getattr(dut, f"{prefix}__payload", None)
        self._stall = stall
        self._on_receive = on_receive
        self._random = rng(f"monitor {prefix}")
        self.prefix = prefix
        self.received: list[int] = []
        self.cycles: list[int] = []
        """Cycle of each transfer, counted from the monitor's start."""
        if self._ready is not None:
            self._ready.value = 0
        cocotb.start_soon(self._monitor(getattr(dut, "rst", None)))

    def __len__(self) -> int:
        """Payloads received."""
        return len(self.received)

    async def wait(self, count: int) -> list[int]:
        """Wait until `count` payloads were received in all; returns them."""
        while len(self.received) < count:
            await RisingEdge(self._clk)
        return self.received

    async def _monitor(self, rst: Any) -> None:
        ready = self._ready is None
        held: int | None = None
        cycle = 0
        while True:
            await RisingEdge(self._clk)
            cycle += 1
            if rst is None or int(rst.value) == 0:
                valid = int(self._valid.value) == 1
                payload = int(self._payload.value) if valid and self._payload is not None else 0
                if held is not None:
                    assert valid, f"{self.prefix}: valid fell before the transfer"
                    assert payload == held, f"{self.prefix}: payload changed before the transfer"
                held = payload if valid and not ready else None
                if valid and ready:
                    self.received.append(payload)
                    self.cycles.append(cycle)
                    if self._on_receive is not None:
                        self._on_receive(payload)
            if self._ready is not None:
                ready = self._random.random() >= self._stall
                self._ready.value = int(ready)


async def finish(
    dut: Any,
    *,
    drivers: Iterable[Driver] = (),
    monitors: Iterable[tuple[Monitor, int]] = (),
    cycles: int,
    quiet: int = 50,
) -> None:
    """End of a test: everything sent, exactly the expected counts received, nothing after.

    Parameters
    ----------
    monitors
        Each with the exact number of payloads it must have received.
    cycles
        Bound on the simulated time to get there.
    quiet
        Further cycles in which nothing may come.
    """
    drivers = list(drivers)
    monitors = list(monitors)

    async def done() -> None:
        for driver in drivers:
            await driver.wait()
        for monitor, count in monitors:
            await monitor.wait(count)

    try:
        await bounded(done(), cycles=cycles)
    except TimeoutError:
        state = [f"{driver.prefix}: {len(driver)} not sent" for driver in drivers]
        state += [f"{monitor.prefix}: {len(monitor)} of {count}" for monitor, count in monitors]
        raise AssertionError(f"not done after {cycles} cycles ({'; '.join(state)})") from None
    await ticks(dut, quiet)
    for monitor, count in monitors:
        assert len(monitor) == count, f"{monitor.prefix}: {len(monitor)} payloads, not {count}"


__all__ = [
    "PERIOD_NS",
    "STALLS",
    "Driver",
    "Monitor",
    "bounded",
    "finish",
    "parameters",
    "rng",
    "seed",
    "start",
    "ticks",
]
