# SPDX-License-Identifier: Apache-2.0
"""The boards: what is on them, at which pins, and what runs there."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Self

from afternorm.board.memory import BoardMemory
from afternorm.errors import AfternormError


@dataclass(frozen=True, kw_only=True)
class Pll:
    """Dividers of an ECP5's PLL: ``output = input / reference * feedback``.

    Attributes
    ----------
    reference, feedback : dividers of the input, and of the output in the loop.
    output : divider from the oscillator in the PLL, which runs at 400 to 800 MHz.
    """

    reference: int
    feedback: int
    output: int

    @classmethod
    def between(cls, oscillator: float, clock: float) -> Self:
        """The dividers that make `clock` of `oscillator`, both in MHz.

        Raises
        ------
        AfternormError
            If none do.
        """
        for reference, feedback in product(range(1, _DIVIDER + 1), repeat=2):
            if oscillator / reference < _COMPARED:
                break
            if oscillator * feedback == clock * reference:
                outputs = range(1, _DIVIDER + 1)
                output = min(outputs, key=lambda output: abs(clock * output - _MIDDLE))
                return cls(reference=reference, feedback=feedback, output=output)
        raise AfternormError(
            f"the PLL cannot make {clock:g} MHz of the board's {oscillator:g} MHz: take a "
            f"multiple of {oscillator / 5:g} MHz"
        )


_DIVIDER = 128
"""Most that each divider of the PLL divides by."""
_COMPARED = 3.125
"""The least MHz that the PLL compares."""
_MIDDLE = 600.0
"""MHz of the PLL's oscillator, in the middle of its range."""


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board, and the machine on it.

    Attributes
    ----------
    device, package, speed : of the chip, as nextpnr-ecp5 takes them.
    preset : the machine's configuration.
    memory : its DRAM, which is block RAM.
    oscillator, clock : MHz, of the board and of the machine.
    pll : makes the one of the other.
    baud : of the link.
    pins : sites by port of the top; an array has several.
    pulls : PULLMODE of inputs that have one, by port.
    """

    device: str
    package: str
    speed: int
    preset: str
    memory: BoardMemory
    oscillator: float
    clock: float
    pll: Pll
    baud: int
    pins: dict[str, tuple[str, ...]]
    pulls: dict[str, str]

    def __post_init__(self) -> None:
        pll = self.pll
        made = self.oscillator / pll.reference * pll.feedback
        if made != self.clock:
            raise AfternormError(f"the PLL makes {made:g} MHz, not the clock's {self.clock:g}")
        if not 400 <= made * pll.output <= 800:
            raise AfternormError(
                f"the PLL's oscillator runs at 400 to 800 MHz, not at {made * pll.output:g}"
            )
        if 1e6 * self.clock % self.baud:
            raise AfternormError(
                f"the clock of {self.clock:g} MHz is no multiple of {self.baud} baud: take a "
                f"multiple of {self.baud / 1e6:g} MHz"
            )

    def at(self, clock: float) -> Self:
        """The board with another clock of the machine, in MHz.

        Raises
        ------
        AfternormError
            If the PLL cannot make it, or the link has no whole number of cycles a bit.
        """
        return replace(self, clock=clock, pll=Pll.between(self.oscillator, clock))

    @property
    def divisor(self) -> int:
        """Cycles of a bit on the link."""
        return round(1e6 * self.clock / self.baud)

    def constraints(self) -> str:
        """Pins and the oscillator, in Lattice's LPF."""
        lines = []
        for port, sites in self.pins.items():
            for number, site in enumerate(sites):
                name = port if len(sites) == 1 else f"{port}[{number}]"
                pull = f" PULLMODE={self.pulls[port]}" if port in self.pulls else ""
                lines.append(f'LOCATE COMP "{name}" SITE "{site}";')
                lines.append(f'IOBUF PORT "{name}" IO_TYPE=LVCMOS33{pull};')
        lines.append(f'FREQUENCY PORT "oscillator" {self.oscillator:g} MHZ;')
        return "\n".join([*lines, ""])


BOARDS = {
    "ulx3s": Board(
        device="85k",
        package="CABGA381",
        speed=6,
        preset="ulx3s",
        memory=BoardMemory(program=16 << 10, data=112 << 10),
        oscillator=25.0,
        clock=40.0,
        pll=Pll(reference=5, feedback=8, output=15),
        baud=2_000_000,
        pins={
            "oscillator": ("G2",),
            "rx": ("M1",),
            "tx": ("L4",),
            "button": ("R1",),
            "leds": ("B2", "C2", "C1", "D2", "D1", "E2", "E1", "H3"),
            "wifi_gpio0": ("L2",),
        },
        pulls={"rx": "UP", "button": "DOWN"},
    ),
}
"""Boards by name: `ulx3s` is the one with the LFE5U-85F."""
DEFAULT_BOARD = "ulx3s"
