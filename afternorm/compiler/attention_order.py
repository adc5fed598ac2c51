# SPDX-License-Identifier: Apache-2.0
"""In which order an attention's products are issued, and how its queries are cut.

The array is idle where it has to wait: for probabilities (the way of scores through accumulators
and exp engine), for an accumulator bank whose scores are still being read, for one whose result is
still being drained, in the serial order for the division by the sum.  The products
are placed one by one, with estimates of those ways from the engines' documented latencies
(`afternorm.cycles.timing`), by some rules for how far scores run ahead; the rule under which the
array waits least is taken.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from afternorm.compiler.buffers import ceil_div, pieces
from afternorm.config import Config
from afternorm.cycles.timing import EXP_SETUP, SCRATCHPAD, SEMAPHORE, timing
from afternorm.errors import CapacityError
from afternorm.isa import Scale

Rows = tuple[int, int]
"""First row and number of rows."""

_DISPATCH = 11
"""Cycles in which the scheduler checks and hands out an instruction."""
_WORTH = 0.02
"""Share of the array's cycles that a cut of the queries must save: it makes more instructions."""
_LEADS = (1, 2, 3, 4)
_LEADS_SERIAL = (1, 2, 3, 4, 6, 8, 12)
_HELD = 2
"""Rules that are tried; see `_Rule`."""
_SAMPLE = 48
"""Of longer programs, so many units from each end are tried."""


@dataclass(frozen=True)
class Work:
    """A unit as the engines see it.

    Attributes
    ----------
    rows, keys : of its scores.
    pieces : keys of each EXP, and of each product with the values.
    first, last : of its result.
    """

    rows: int
    keys: int
    pieces: tuple[int, ...]
    first: bool
    last: bool


class Pace:
    """Cycles that the engines take for the parts of an attention.

    Parameters
    ----------
    config : the accelerator.
    head_dim : features of a head.

    Attributes
    ----------
    step, width : least keys of an EXP, in whole blocks and array widths; most keys of a unit.
    parts : a head's features, by bank.
    score_banks, value_banks : accumulator banks for scores, and for results.

    Raises
    ------
    CapacityError
        If there are too few banks for a head's features.
    """

    def __init__(self, config: Config, head_dim: int) -> None:
        self.config, self.head_dim = config, head_dim
        c, t = config, timing(config)
        self.step = max(c.block, c.columns)
        self.width = c.acc_width // self.step * self.step
        self.score_banks = min(3, (c.acc_banks + 1) // 2)
        self.value_banks = c.acc_banks - self.score_banks
        self.parts = [features for _, features in pieces(head_dim, c.acc_width)]
        if len(self.parts) > self.value_banks:
            raise CapacityError(
                f"a head of {head_dim} features needs {len(self.parts)} accumulator banks of "
                f"acc_width={c.acc_width} beside {self.score_banks} for scores; there are "
                f"acc_banks={c.acc_banks}"
            )
        self.least = max(c.columns, t.tile_period)
        product = t.dot_control + t.product_done + SEMAPHORE
        self.to_exp = product + EXP_SETUP + 2
        self.to_values = t.exp_done + SEMAPHORE + c.columns + 3
        self.from_exp = t.exp_done + SEMAPHORE + c.columns + 3
        self.to_vector = product + SEMAPHORE + 2
        self.from_vector = t.vector_write + t.vector_block + SEMAPHORE + c.columns + 5
        self.to_divide = t.exp_done + SCRATCHPAD + t.tap + t.scales[Scale.SOFTMAX] + 4 * SEMAPHORE
        self.from_divide = t.vector_write + t.vector_block + SEMAPHORE + c.columns
        self.tap_period = t.tap_period

    def scores(self, work: Work) -> int:
        """Array cycles of a unit's scores."""
        c = self.config
        passes = ceil_div(self.head_dim, c.block) * ceil_div(work.keys, c.columns)
        return max(work.rows, self.least) * passes

    def values(self, work: Work, keys: int, features: int) -> int:
        """Array cycles of the product of a unit's probabilities of some keys with the values."""
        passes = ceil_div(keys, self.config.block) * ceil_div(features, self.config.columns)
        return max(work.rows, self.least) * passes

    def exp(self, work: Work, keys: int) -> int:
        """Cycles in which the exp engine reads a unit's scores of some keys."""
        c = self.config
        return work.rows * ceil_div(keys, c.block) * (c.block // min(c.columns, c.block))

    def drain(self, work: Work, features: int) -> int:
        """Cycles of the vector pass that drains a bank of a result."""
        c = self.config
        return work.rows * ceil_div(features, c.block) * (c.block // c.lanes)

    def scan(self, work: Work) -> int:
        """Cycles of the pass that sums a unit's probabilities."""
        return max(work.rows, self.tap_period) * ceil_div(work.keys, self.config.block)

    def array(self, rows: int, keys: int) -> int:
        """Array cycles of a result of some rows."""
        one = Work(rows, keys, (), True, True)
        return self.scores(one) + self.values(one, keys, self.head_dim)

    def cost(self, rows: int, keys: int) -> int:
        """Cycles of a result of some rows, if there are many like it."""
        instructions = scores = read = 0
        for first, some in pieces(keys, self.width):
            one = Work(rows, some, (), first == 0, first + some == keys)
            scores = self.scores(one)
            instructions += 1 + (1 + len(self.parts)) * ceil_div(some, self.step)
            read += scores + self.to_exp + self.exp(one, some) + self.from_exp
        array = self.array(rows, keys)
        # Beneath the drain come the last unit's scores.
        drained = self.to_vector + self.drain(one, self.head_dim) + self.from_vector - scores
        return max(
            array,
            _DISPATCH * (instructions + 2),
            read // self.score_banks,
            (array + drained) // max(1, self.value_banks // len(self.parts)),
        )

    def divide(self, work: Work) -> int:
        """Cycles of the vector pass that divides a unit's probabilities."""
        c = self.config
        return work.rows * ceil_div(work.keys, c.block) * (c.block // c.lanes)


def causal_rows(pace: Pace, rows: Rows, *, position: int, keys: int) -> list[Rows]:
    """Causal queries, cut so that they take the fewest cycles.

    A query needs the blocks of keys up to its own one, of `keys` at most.  But fewer rows than the
    array has columns take as long as so many, and short units wait for banks.

    Parameters
    ----------
    pace : of the accelerator.
    rows : the queries.
    position : of query 0 among the keys.
    keys : keys that there are.
    """
    c, (start, count) = pace.config, rows

    def seen(end: int) -> int:
        return min(keys, position + start + end)

    ends = {end for end in range(1, count) if (position + start + end) % c.block == 0}
    if ends and count - max(ends) < pace.least:
        ends.add(count - pace.least)
    ends.add(count)
    best: dict[int, tuple[int, list[int]]] = {0: (0, [0])}
    for end in sorted(end for end in ends if end > 0):
        best[end] = min(
            (spent + pace.cost(end - first, seen(end)), [*cuts, end])
            for first, (spent, cuts) in best.items()
        )
    cut = list(pairwise(best[count][1]))
    array = sum(pace.array(end - first, seen(end)) for first, end in cut)
    if array > (1 - _WORTH) * pace.array(count, seen(count)):
        return [rows]
    return [(start + first, end - first) for first, end in cut]


def order(pace: Pace, units: Sequence[Work], *, serial: bool) -> tuple[int, list[int]]:
    """By unit, after which unit's scores its product with the values comes; and what it costs.

    The cost is an estimate of the cycles that the array waits.

    Parameters
    ----------
    pace : of the accelerator.
    units : in the order of their scores.
    serial : the probabilities are divided by their sum before their product with the values.
    """
    sample = units if len(units) <= 2 * _SAMPLE else [*units[:_SAMPLE], *units[-_SAMPLE:]]
    rules = [
        _Rule(lead, held, eager)
        for lead in (_LEADS_SERIAL if serial else _LEADS)
        for held in range(min(lead, _HELD) + 1)
        for eager in (False, True)
    ]
    best = min(rules, key=lambda rule: _Placement(pace, sample, serial, rule).cost)
    placement = _Placement(pace, units, serial, best)
    return placement.idle, placement.due


@dataclass(frozen=True)
class _Rule:
    """How far scores run ahead.

    Attributes
    ----------
    lead : units whose scores come before the product of one with the values, at most.
    held : units whose products with the values come behind the last scores.
    eager : the product that can start first goes first; else scores always run ahead.
    """

    lead: int
    held: int
    eager: bool


class _Placement:
    """The products of an attention, placed by a rule.

    Attributes
    ----------
    idle : cycles that the array waits.
    due : by unit, after which unit's scores its product with the values comes.
    """

    def __init__(self, pace: Pace, units: Sequence[Work], serial: bool, rule: _Rule) -> None:
        self.pace, self.units, self.serial = pace, units, serial
        self.idle = self._free = self._exp = self._scan = self._vector = 0
        self._score_banks = deque([0] * pace.score_banks)
        self._value_banks = deque([0] * pace.value_banks)
        self._ready: list[list[int]] = []
        self._divided = 0
        self.due: list[int] = []
        count = len(units)
        while len(self.due) < count:
            made, used = len(self._ready), len(self.due)
            more = made < count and made - used <= rule.lead
            may = used < (self._divided if serial else made)
            may = may and (made == count or used < count - rule.held)
            if more and may and rule.eager:
                more = self._score_banks[0] < self._begin(used)
            if more or not may:
                self._scores(made)
            else:
                self._values(used)

    @property
    def cost(self) -> tuple[int, int]:
        """What is least for the best rule: waiting, then the end of the last drain."""
        return self.idle, self._vector

    def _begin(self, number: int) -> int:
        """When a unit's product with the values can begin."""
        bank = self._value_banks[0] if self.units[number].first else 0
        return max(self._free, self._ready[number][0], bank)

    def _advance(self, start: int, cycles: int) -> None:
        self.idle += max(0, start - self._free)
        self._free = max(start, self._free) + cycles

    def _scores(self, number: int) -> None:
        pace, unit = self.pace, self.units[number]
        self._advance(self._score_banks.popleft(), pace.scores(unit))
        self._exp = max(self._exp, self._free + pace.to_exp)
        ready = []
        for keys in unit.pieces:
            self._exp += pace.exp(unit, keys)
            ready.append(self._exp + pace.to_values)
        self._score_banks.append(self._exp + pace.from_exp)
        self._ready.append(ready)
        if number + 1 == len(self.units):
            # No more scores: what follows the next result may take their banks, too.
            for bank in range(len(self._score_banks)):
                self._value_banks.insert(len(pace.parts) + bank, self._score_banks[bank])
        if not self.serial:
            return
        self._scan = max(self._scan, self._exp) + pace.scan(unit)
        if unit.last:
            self._vector = max(self._vector, self._scan + pace.to_divide)
            for member in range(self._divided, number + 1):
                self._vector += pace.divide(self.units[member])
                ready = self._ready[member]
                ready[:] = [self._vector + pace.from_divide] * len(ready)
            self._divided = number + 1

    def _values(self, number: int) -> None:
        pace, unit, banks = self.pace, self.units[number], self._value_banks
        fresh = unit.first
        for keys, at in zip(unit.pieces, self._ready[number], strict=True):
            for part, features in enumerate(pace.parts):
                start = max(at, banks[part]) if fresh else at
                self._advance(start, pace.values(unit, keys, features))
            fresh = False
        if unit.last:
            self._vector = max(self._vector, self._free + pace.to_vector)
            for features in pace.parts:
                self._vector += pace.drain(unit, features)
                banks.popleft()
                banks.append(self._vector + pace.from_vector)
        self.due.append(len(self._ready) - 1)
