# SPDX-License-Identifier: Apache-2.0
"""Memory ports that are shared: who goes last gets the cycles that the others leave.

Who goes first announces the cycles in which it uses the port, before they come.  Who goes later
looks, when its turn comes, which cycle is left.
"""

from dataclasses import dataclass

from afternorm.cycles.kernel import Kernel, Steps

ALL_BANKS = -1
_FORGET = 32
"""Announcements from which on past ones are dropped."""
_SLICE = 32
"""Accesses that are looked at together."""


@dataclass(slots=True)
class Use:
    """A port is used from `first` to before `end`, in `width` of each `period` cycles.

    `banks` : the set of banks that are meant, a bit each.
    """

    first: int
    end: int
    period: float
    width: int
    priority: int
    banks: int


def next_free(uses: list[Use], cycle: int) -> int:
    """The first cycle from `cycle` on in which none of `uses` has the port."""
    moved = True
    while moved:
        moved = False
        for use in uses:
            if use.first <= cycle < use.end:
                if use.width >= use.period:
                    cycle, moved = use.end, True
                else:
                    at = int((cycle - use.first) % use.period)
                    if at < use.width:
                        cycle, moved = min(use.end, cycle + use.width - at), True
    return cycle


class Port:
    """A shared port; a lower `priority` goes first."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.uses: list[Use] = []

    def announce(
        self,
        first: int,
        end: int,
        priority: int,
        *,
        period: float = 1,
        width: int = 1,
        banks: int = ALL_BANKS,
    ) -> Use:
        """The port will be used."""
        if self.uses:
            use = self.uses[-1]
            alike = (use.priority, use.banks) == (priority, banks)
            if (
                alike
                and width >= period
                and use.width >= use.period
                and use.first <= use.end == first
            ):
                use.end = end
                return use
        use = Use(first, end, period, width, priority, banks)
        self.uses.append(use)
        if len(self.uses) > _FORGET:
            # Nobody looks back further than to its last access.
            now = self.kernel.now - 4 * _SLICE
            self.uses = [use for use in self.uses if use.end > now]
        return use

    def others(self, priority: int, first: float, banks: int = ALL_BANKS) -> list[Use]:
        """Uses from the cycle `first` on that go before a `priority`."""
        return [
            use
            for use in self.uses
            if use.end > first and use.priority < priority and use.banks & banks
        ]

    def serve(
        self,
        first: float,
        count: int,
        priority: int,
        *,
        spacing: float = 1.0,
        banks: int = ALL_BANKS,
    ) -> Steps:
        """Wait for the last of `count` accesses; its cycle.

        The first comes at `first` at the earliest, and each `spacing` cycles after the one before.
        Refused, it keeps the port from all that go later.
        """
        use = self.announce(int(first), int(first + count * spacing), priority, period=spacing)
        kernel = self.kernel
        time = first
        last = 0
        while count:
            # Between accesses that are apart others go, who must know of a refusal in its cycle.
            part = min(count, _SLICE) if spacing == 1 else 1
            count -= part
            yield int(time + (part - 1) * spacing)
            uses = self.others(priority, time, banks)
            if not uses:
                last = int(time + (part - 1) * spacing)
                time += part * spacing
                continue
            for number in range(part):
                cycle = int(time)
                last = next_free(uses, cycle)
                held = None
                while True:
                    if held is not None:
                        held.end = last + 1
                    elif last > cycle:
                        use.end = min(use.end, cycle)
                        held = self.announce(cycle, last + 1, priority)
                    if last <= kernel.now:
                        break
                    yield last
                    uses = self.others(priority, time, banks)
                    last = next_free(uses, last)
                if last > cycle:
                    time = last + spacing
                    end = int(time + (count + part - number - 1) * spacing)
                    use = self.announce(int(time), end, priority, period=spacing)
                else:
                    time += spacing
        use.end = min(use.end, last + 1)
        return last
