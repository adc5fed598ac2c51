# SPDX-License-Identifier: Apache-2.0
"""The rules of AXI4 that a master's bus is watched for, cycle by cycle.

On all channels, valid and what comes with it hold until ready.  Bursts are
incrementing, of whole beats, and stay within 4 KiB.  Beats of W follow the order
of their addresses, none before its address is offered, and WLAST marks the last
of each burst.  R and B answer what was asked, as often as it was asked, and
RLAST marks the last beat.  After an error response no AW is offered, and no byte
is written, until `forgive`.

`AxiRules` knows nothing of a simulator; `AxiMonitor` feeds it from one.
"""

from collections import deque

import cocotb
from cocotb.triggers import RisingEdge

PAGE = 4096
ADDRESS = ("addr", "len", "size", "burst", "id")
CHANNELS = {
    "aw": ADDRESS,
    "w": ("data", "strb", "last"),
    "b": ("resp", "id"),
    "ar": ADDRESS,
    "r": ("data", "resp", "last", "id"),
}
"""What comes with valid, by channel of AXI4."""
LITE_CHANNELS = {
    "aw": ("addr",),
    "w": ("data", "strb"),
    "b": ("resp",),
    "ar": ("addr",),
    "r": ("data", "resp"),
}
"""The same of AXI4-Lite."""


class Handshakes:
    """The rule of valid and ready, on all channels.

    Parameters
    ----------
    channels : what comes with valid, by channel.
    """

    def __init__(self, channels: dict[str, tuple[str, ...]]):
        self.channels = channels
        self.held: dict[str, tuple | None] = dict.fromkeys(channels)

    def reset(self) -> None:
        """The bus is reset: nothing is under way any more."""
        self.held = dict.fromkeys(self.channels)

    def cycle(self, sample: dict) -> None:
        """Check a cycle.

        Parameters
        ----------
        sample : by channel, its payload (a tuple as in `channels`, or None if not valid) and
            ready.
        """
        offered, moved = {}, {}
        for name, (payload, ready) in sample.items():
            before = self.held[name]
            if before is not None:
                assert payload is not None, f"{name}: valid fell before ready"
                assert payload == before, f"{name}: changed before ready, {before} to {payload}"
            elif payload is not None:
                offered[name] = payload
            self.held[name] = None if ready else payload
            if payload is not None and ready:
                moved[name] = payload
        self.follow(offered, moved)

    def follow(self, offered: dict[str, tuple], moved: dict[str, tuple]) -> None:
        """Check what is offered for the first time, and what is transferred."""
        raise NotImplementedError


class LiteRules(Handshakes):
    """AXI4-Lite: as many answers as questions, and none before its question."""

    def __init__(self):
        super().__init__(LITE_CHANNELS)
        self.reset()

    def reset(self) -> None:
        """The bus is reset: nothing is under way any more."""
        super().reset()
        self.count = dict.fromkeys(self.channels, 0)

    @property
    def idle(self) -> bool:
        """Every question is answered."""
        count = self.count
        return count["aw"] == count["w"] == count["b"] and count["ar"] == count["r"]

    def follow(self, offered: dict[str, tuple], moved: dict[str, tuple]) -> None:
        """Count the transfers."""
        count = self.count
        if "b" in offered:
            assert count["b"] < min(count["aw"], count["w"]), "B answers no write"
        if "r" in offered:
            assert count["r"] < count["ar"], "R answers no read"
        for name in moved:
            count[name] += 1


class AxiRules(Handshakes):
    """Checks one cycle after the other.

    Parameters
    ----------
    width : bits of a beat.

    Attributes
    ----------
    read, written : AXI bursts that were asked for: address and beats.
    error_address : of the beat or burst of the first error response since `forgive`, or None.
    """

    def __init__(self, width: int):
        super().__init__(CHANNELS)
        self.bytes = width // 8
        self.read: list[tuple[int, int]] = []
        self.written: list[tuple[int, int]] = []
        self.error_address: int | None = None
        self.reset()

    def reset(self) -> None:
        """The bus is reset: nothing is under way any more."""
        super().reset()
        self.reading: deque[list[int]] = deque()  # address of the next beat, beats to come
        self.to_send: deque[list[int]] = deque()  # of bursts with an address: beats to come
        self.unanswered: deque[int] = deque()  # addresses that were accepted
        self.sent = 0  # of these bursts, those whose data were accepted
        self.error_address = None

    def forgive(self) -> None:
        """The error is over: writes are allowed again."""
        self.error_address = None

    @property
    def idle(self) -> bool:
        """Nothing is under way."""
        return not (self.reading or self.to_send or self.unanswered or self.sent)

    def follow(self, offered: dict[str, tuple], moved: dict[str, tuple]) -> None:
        """Check bursts, their beats and their answers."""
        for name in ("aw", "ar"):
            if name in offered:
                self._burst(name, offered[name])
        if "aw" in offered:
            assert self.error_address is None, "AW was offered after an error"
            address, length = offered["aw"][:2]
            self.written.append((address, length + 1))
            self.to_send.append([length + 1])
        if "w" in offered:
            assert self.to_send, "W was offered before its AW"
            _, strobe, last = offered["w"]
            assert last == (self.to_send[0][0] == 1), f"WLAST is {last}"
            assert self.error_address is None or strobe == 0, "a byte was written after an error"
        # An answer comes a cycle after what it answers, at the earliest.
        if "b" in moved:
            assert self.unanswered and self.sent, "B answers a burst that is not complete"
            address = self.unanswered.popleft()
            self.sent -= 1
            self._respond(moved["b"][0], address)
        if "r" in moved:
            assert self.reading, "R answers no burst"
            _, response, last, _ = moved["r"]
            burst = self.reading[0]
            assert last == (burst[1] == 1), f"RLAST is {last}"
            self._respond(response, burst[0])
            burst[0], burst[1] = burst[0] + self.bytes, burst[1] - 1
            if not burst[1]:
                self.reading.popleft()
        if "w" in moved:
            self.to_send[0][0] -= 1
            if not self.to_send[0][0]:
                self.to_send.popleft()
                self.sent += 1
        if "aw" in moved:
            self.unanswered.append(moved["aw"][0])
        if "ar" in moved:
            address, length = moved["ar"][:2]
            self.read.append((address, length + 1))
            self.reading.append([address, length + 1])

    def _burst(self, name: str, payload: tuple) -> None:
        address, length, size, kind, identity = payload
        assert 1 << size == self.bytes, f"{name}: size {size}"
        assert (kind, identity) == (1, 0), f"{name}: burst {kind}, ID {identity}"
        assert address % self.bytes == 0, f"{name}: {address:#x} is not at a beat"
        end = address % PAGE + (length + 1) * self.bytes
        assert end <= PAGE, f"{name}: {length + 1} beats at {address:#x} cross 4 KiB"

    def _respond(self, response: int, address: int) -> None:
        if response & 2 and self.error_address is None:
            self.error_address = address


class Watch:
    """Feeds rules from the bus of a simulated design, at every cycle out of reset.

    Parameters
    ----------
    prefix : of the bus's names.

    Attributes
    ----------
    cycles : how many there were.
    """

    def __init__(self, dut, rules: Handshakes, prefix: str):
        self.cycles = 0
        self._dut, self._rules = dut, rules
        self._wires = {
            name: (
                getattr(dut, f"{prefix}{name}valid"),
                getattr(dut, f"{prefix}{name}ready"),
                [getattr(dut, f"{prefix}{name}{part}") for part in parts],
            )
            for name, parts in rules.channels.items()
        }
        cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        edge = RisingEdge(self._dut.clk)
        nothing = (None, 0)
        while True:
            await edge
            self.cycles += 1
            if int(self._dut.rst.value):
                self._rules.reset()
                continue
            self._rules.cycle(
                {
                    name: (tuple(int(part.value) for part in parts), int(ready.value))
                    if int(valid.value)
                    else nothing
                    for name, (valid, ready, parts) in self._wires.items()
                }
            )


class AxiMonitor(AxiRules):
    """Watches the AXI4 bus of a simulated design.

    Attributes
    ----------
    beats : of each that was read, cycle and address.
    """

    def __init__(self, dut, prefix: str = "m_axi_"):
        super().__init__(len(getattr(dut, f"{prefix}wdata")))
        self.beats: list[tuple[int, int]] = []
        self.watch = Watch(dut, self, prefix)

    def follow(self, offered: dict[str, tuple], moved: dict[str, tuple]) -> None:
        """Note the beats."""
        if "r" in moved and self.reading:
            self.beats.append((self.watch.cycles, self.reading[0][0]))
        super().follow(offered, moved)
