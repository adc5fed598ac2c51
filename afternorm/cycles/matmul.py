# SPDX-License-Identifier: Apache-2.0
"""The time of MATMUL: weight tiles in the order of `hdl.matmul.sequencer`.

A weight tile's rows of A begin with `go`: when its columns of B are loaded and the rows of the
tile before are through.  The columns of the next one are loaded meanwhile.  So the period of
tiles is the largest of M, of the columns, and of the interlocks' distances; where A and B lie in
the same bank, the columns are loaded in the cycles that the rows of A leave.
"""

from collections.abc import Iterator

from afternorm.cycles.kernel import Steps
from afternorm.cycles.machine import Machine
from afternorm.cycles.timing import TAP_DELAY, TILER_PERIOD
from afternorm.cycles.unit import Unit
from afternorm.isa import Instruction, Stats

_Alike = tuple[int, int, int]

_OPERANDS = 0
"""Priority of A and B at the scratchpad."""


class Matmul(Unit):
    """The matrix engine.

    Attributes
    ----------
    rows : rows of A that entered the array.
    first_read, first_row, last_row, last_result : cycles; -1 before there was any.
    gaps : by instruction, the last row before it, and the cycle before its first.
    """

    BUSY_WHEN_OFFERED = True

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.rows = 0
        self.first_read = self.first_row = self.last_row = self.last_result = -1
        self.gaps: list[tuple[int, int]] = []
        self._go = -(1 << 30)  # of the last weight tile
        self._stream_end = -1  # its last row of A
        self._burst = -(1 << 30)  # its first column of B
        self._tapped = -(1 << 30)  # the last block at the tap
        self._a_base = self._a_row = 0
        self._free = 0  # the tiler's

    def execute(self, i: Instruction, offered: int) -> Steps:
        """Execute an instruction that is offered from a cycle on; when it is accepted."""
        m, t = self.machine, self.machine.timing
        c = m.config.columns
        body = i.body
        rows, blocks, cols = body["rows"], body["blocks"], body["cols"]
        tap_a, tap_b = body["stats"] == Stats.A, body["stats"] == Stats.B
        continues = not body["stat_first"]
        a_span = (rows - 1) * body["a_row"] + (blocks - 1) * body["a_block"]
        b_span = (cols - 1) * body["b_col"] + (blocks - 1) * body["b_block"]
        a_banks = m.banks(body["a_base"], body["a_base"] + a_span)
        b_banks = m.banks(body["b_base"], body["b_base"] + b_span)
        apart = not a_banks & b_banks
        early = 0
        offer = max(offered, self._free) + TILER_PERIOD - 1
        tiles = -(-cols // c)
        for tile in range(tiles):
            width = min(c, cols - tile * c)
            column = body["b_base"] + (tile * c + width - 1) * body["b_col"]
            released = offer - 1
            # The tile is taken: at the earliest when the loader's last tile goes.
            taken = max(offer, self._go)
            offer = taken + TILER_PERIOD
            first = taken + 1
            if tap_b:
                # The tap takes no columns while rows pass it.
                if continues:
                    first = max(first, self._tapped + t.tap_period)
                else:
                    first = max(first, self._tapped + 1, self._burst + t.tap_period)
            if tile == 0 or not apart:
                self._burst, complete = self._load(first, width, column, body["b_col"])
            else:
                self._burst, complete = first, first + width - 1
            self._announce_burst(first, complete, width, column, body["b_col"])
            if self.first_read < 0:
                self.first_read = first
            go = max(complete, self._stream_end)
            if body["accumulate"]:
                go = max(go, self._go + t.tile_period)
            if tap_a and tile == 0 and continues:
                go = max(go, self._tapped + t.tap_period)
            if tile == 0:
                self.gaps.append((self._stream_end, go))
            if self.first_row < 0:
                self.first_row = go + 1
            self._stream(go, body, 0)
            if apart and not tap_b:
                period = max(rows, width, t.tile_period)
                self._announce_rows(go, body, range(blocks), period)
                self._announce_columns(go, body, column, width, period)
                if blocks > 1:
                    go += (blocks - 1) * period
                    self._burst = go - period + 1
                    complete = self._burst + width - 1
                    self._stream(go, body, blocks - 1)
            else:
                self._announce_rows(go, body, range(1), rows)
                for block in range(1, blocks):
                    first = go + 1
                    if tap_b:
                        first = max(first, self._burst + t.tap_period)
                    column += body["b_block"]
                    self._burst, complete = self._load(first, width, column, body["b_col"])
                    self._announce_burst(first, complete, width, column, body["b_col"])
                    go = max(complete, go + max(rows, t.tile_period))
                    self._stream(go, body, block)
                    self._announce_rows(go, body, range(block, block + 1), rows)
            if tap_b:
                self._tapped = complete
            elif tap_a and tile == 0:
                self._tapped = go + rows
            written = self._stream_end + t.dot_control + t.product_write + width - 1
            self.last_result = max(self.last_result, written)
            if tile == 0:
                early = go + rows
        if tap_b:
            early = complete + 1
        last = self._stream_end
        self.rows += rows * blocks * tiles
        self.last_row = last
        self._free = taken + 1
        self.complete(i, last + t.dot_control + t.product_done, early + TAP_DELAY + t.tap)
        yield released
        return released

    def _stream(self, go: int, body: dict[str, int], block: int) -> None:
        """The rows of A of a weight tile enter the array after `go`."""
        self._go, self._stream_end = go, go + body["rows"]
        self._a_base = body["a_base"] + block * body["a_block"]
        self._a_row = body["a_row"]

    def _load(self, first: int, width: int, address: int, stride: int) -> tuple[int, int]:
        """When a weight tile's columns of B are read, from `address` down to column 0.

        The first of them, later by the cycles that then go by while a column is refused within the
        period of bursts, as those do not count in it; and the last.
        """
        bank, banks = self.machine.bank, self.machine.banks
        go, end = self._go, self._stream_end
        low, high = self._a_base, self._a_base + (end - go - 1) * self._a_row
        used, asked = banks(low, high), banks(address - (width - 1) * stride, address)
        if first > end or not used & asked:
            return first, first + width - 1
        if first > go and used == asked and not used & (used - 1):
            return end + 1, end + width
        time, burst = first, -1
        for _ in range(width):
            while time <= end and bank(low + (time - go - 1) * self._a_row) == bank(address):
                if burst >= 0 and time < burst + self.machine.timing.tap_period:
                    burst += 1
                time += 1
            if burst < 0:
                burst = time
            address -= stride
            time += 1
        return burst, time - 1

    def _announce_rows(self, go: int, body: dict[str, int], blocks: range, period: int) -> None:
        """The rows of A of weight tiles, `period` cycles apart, in the scratchpad's banks."""
        m, port = self.machine, self.machine.third
        rows, stride = body["rows"], body["a_row"]
        first, begin = go + 1, body["a_base"] + blocks.start * body["a_block"]
        span = (rows - 1) * stride
        for low, high, banks in self._alike(begin, body["a_block"], span, len(blocks)):
            if banks & (banks - 1):
                for block in range(low, high):
                    base = begin + block * body["a_block"]
                    for row in range(rows):
                        at = first + block * period + row
                        port.announce(at, at + 1, _OPERANDS, banks=1 << m.bank(base + row * stride))
            else:
                since, last = first + low * period, first + (high - 1) * period + rows
                port.announce(since, last, _OPERANDS, period=period, width=rows, banks=banks)

    def _announce_columns(
        self, go: int, body: dict[str, int], address: int, width: int, period: int
    ) -> None:
        """The columns of B of the weight tiles behind the first, whose last column is given."""
        step, stride = body["b_block"], body["b_col"]
        span = (width - 1) * stride
        for low, high, banks in self._alike(address - span + step, step, span, body["blocks"] - 1):
            if banks & (banks - 1):
                for block in range(low, high):
                    first, column = go + 1 + block * period, address + (block + 1) * step
                    self._announce_burst(first, first + width - 1, width, column, stride)
            else:
                begin, last = go + 1 + low * period, go + 1 + (high - 1) * period + width
                self.machine.third.announce(
                    begin, last, _OPERANDS, period=period, width=width, banks=banks
                )

    def _announce_burst(self, first: int, last: int, width: int, address: int, stride: int) -> None:
        """The columns of B of a weight tile, from `address` down, asked for from `first` on."""
        m, port = self.machine, self.machine.third
        banks = m.banks(address - (width - 1) * stride, address)
        if banks & (banks - 1) and last - first < width:
            for cycle in range(first, last + 1):
                port.announce(cycle, cycle + 1, _OPERANDS, banks=1 << m.bank(address))
                address -= stride
        else:  # A column that is refused is asked for in the next cycle, too.
            port.announce(first, last + 1, _OPERANDS, banks=banks)

    def _alike(self, base: int, stride: int, span: int, blocks: int) -> Iterator[_Alike]:
        """Runs of blocks in the same banks: the first, the one behind the last, the banks."""
        banks = self.machine.banks
        whole = banks(base, base + (blocks - 1) * stride + span) if blocks else 0
        if not whole & (whole - 1):
            if blocks:
                yield 0, blocks, whole
            return
        low = 0
        current = banks(base, base + span)
        for block in range(1, blocks):
            at = base + block * stride
            following = banks(at, at + span)
            if following != current:
                yield low, block, current
                low, current = block, following
        yield low, blocks, current
