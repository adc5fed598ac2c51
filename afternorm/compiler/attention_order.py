# SPDX-License-Identifier: Apache-2.0
"""In which order an attention's products are issued, and how its queries are cut.

The array is idle where it has to wait: for probabilities (the way of scores through accumulators
and exp engine), for an accumulator bank whose scores are still being read, for one whose result is
still being drained, in the serial order for the division by the sum.  The products
are placed one by one, with estimates of those ways from the engines' documented latencies
(`afternorm.cycles.timing`); a beam search (Lowerre 1976) finds the order in which the array waits
least, as far as these estimates go.  Between several orders the model of the machine's time decides
(`afternorm.compiler.kernels`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
LEADS, LEADS_SERIAL = (4, 6, 3), (6, 3, 8)
"""Units whose scores may come before the product of one with the values, at most: what is worth a
search, the usual one first.  In the serial order estimates are off: SCAN and division of P wait
while a product streams other rows of P from the same bank.  No lead is the best for all shapes."""
_KEPT = 4
"""Placements of as many scores and products with the values that the search follows."""
_WEIGHT = 8
"""What a cycle of the array is worth in cycles of an accumulator bank."""


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
    crowded : while the exp engine reads scores, it writes blocks in every cycle that is there.
    write_lag : cycles from a slot to its write that a vector pass takes longer than exp.

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
        self.crowded = c.columns >= c.block
        self.write_lag = t.vector_write + t.vector_block - t.exp_done

    def scores(self, work: Work) -> int:
        """Array cycles of a unit's scores."""
        c = self.config
        passes = ceil_div(self.head_dim, c.block) * ceil_div(work.keys, c.columns)
        return max(work.rows, self.least) * passes

    def values(self, work: Work, keys: int, features: int) -> int:
        """Array cycles of the product of a unit's probabilities of some keys with the values."""
        passes = ceil_div(keys, self.config.block) * ceil_div(features, self.config.columns)
        return max(work.rows, self.least) * passes

    def exp(self, rows: int, keys: int) -> int:
        """Cycles in which the exp engine reads scores."""
        c = self.config
        return rows * ceil_div(keys, c.block) * (c.block // min(c.columns, c.block))

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
            read += scores + self.to_exp + self.exp(rows, some) + self.from_exp
        array = self.array(rows, keys)
        # Beneath the drain come the last unit's scores.
        drained = self.to_vector + self.drain(one, self.head_dim) + self.from_vector - scores
        return max(
            array,
            _DISPATCH * (instructions + 2),
            read // self.score_banks,
            (array + drained) // max(1, self.value_banks // len(self.parts)),
        )

    def total(self, units: Sequence[Work]) -> int:
        """Array cycles of units, without waiting."""
        return sum(
            self.scores(unit)
            + sum(self.values(unit, keys, part) for keys in unit.pieces for part in self.parts)
            for unit in units
        )

    def divide(self, work: Work) -> int:
        """Cycles of the vector pass that divides a unit's probabilities."""
        c = self.config
        return work.rows * ceil_div(work.keys, c.block) * (c.block // c.lanes)


def causal_rows(
    pace: Pace, rows: Rows, *, position: int, keys: int, waits: bool = True
) -> list[Rows]:
    """Causal queries, cut so that they take the fewest cycles.

    A query needs the blocks of keys up to its own one, of `keys` at most.  But fewer rows than the
    array has columns take as long as so many, and short units wait for banks.

    Parameters
    ----------
    pace : of the accelerator.
    rows : the queries.
    position : of query 0 among the keys.
    keys : keys that there are.
    waits : what waiting costs counts, too, and a cut must be worth its instructions; else only the
        array's cycles count.
    """
    c, (start, count) = pace.config, rows

    def seen(end: int) -> int:
        return min(keys, position + start + end)

    ends = {end for end in range(1, count) if (position + start + end) % c.block == 0}
    if ends and count - max(ends) < pace.least:
        ends.add(count - pace.least)
    ends.add(count)
    for first, end in pairwise(sorted({0, *ends})):
        ends.update(range(first + c.rows_max, end, c.rows_max))
    cost = pace.cost if waits else pace.array
    best: dict[int, tuple[int, list[int]]] = {0: (0, [0])}
    for end in sorted(end for end in ends if end > 0):
        best[end] = min(
            (spent + cost(end - first, seen(end)), [*cuts, end])
            for first, (spent, cuts) in best.items()
            if end - first <= c.rows_max
        )
    cut = list(pairwise(best[count][1]))
    array = sum(pace.array(end - first, seen(end)) for first, end in cut)
    if waits and array > (1 - _WORTH) * pace.array(count, seen(count)):
        return [rows]
    return [(start + first, end - first) for first, end in cut]


@dataclass(frozen=True)
class Order:
    """The order of an attention's products, and where they are made.

    Attributes
    ----------
    end : estimate of the array's cycles, waiting included.
    due : by unit, after which unit's scores its product with the values comes.
    score_banks, value_banks : accumulator banks, in the order in which they are taken.
    """

    end: int
    due: list[int]
    score_banks: list[int]
    value_banks: list[int]


def order(pace: Pace, units: Sequence[Work], *, serial: bool, pooled: bool, lead: int) -> Order:
    """The order in which the array waits least.

    Of the placements of as many scores and as many products with the values, those that keep the
    array and the accumulator banks the least time are followed.

    Parameters
    ----------
    pace : of the accelerator.
    units : in the order of their scores.
    serial : the probabilities are divided by their sum before their product with the values.
    pooled : whether any bank may hold scores or results; else some are for the ones, the rest for
        the others.
    lead : units whose scores may come before the product of one with the values; more only where
        a result needs them.
    """
    count = len(units)
    search = _Search(pace, units, serial, pooled)
    placements = [_Placement(banks=(0,) * pace.config.acc_banks)]
    for _ in range(2 * count):
        following: dict[int, list[_Placement]] = {}
        for one in placements:
            may = one.used < (one.divided if serial else one.made)
            if one.made < count and (one.made - one.used <= lead or not may):
                following.setdefault(one.made + 1, []).append(search.scores(one))
            if may:
                following.setdefault(one.made, []).append(search.values(one))
        placements = [
            one for some in following.values() for one in sorted(some, key=_Placement.cost)[:_KEPT]
        ]
    return min(placements, key=lambda one: (one.free, one.lead)).order()


_Drain = tuple[int, int, int]
"""A vector pass that drains a result: its bank, its first slot, the cycle behind its last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placement:
    """The first products of an attention, placed.

    Attributes
    ----------
    banks : when they are free.
    made, used : units whose scores, and whose products with the values are placed.
    divided : units whose probabilities are divided by their sum.
    free, issued, exp, scan, vector : until when array, dispatch and engines are taken.
    tapped : when the statistics tap can continue with the result's sums.
    own : banks of the result that is not complete.
    ready : when the probabilities of units between scores and values are there, by piece.
    bursts : the last times in which exp writes, seen from a vector pass: first, end.
    drains : the last ones.
    lead : the most units between scores and values.
    before : the placement that this one continues.
    taken : banks that were taken since.
    """

    banks: tuple[int, ...]
    made: int = 0
    used: int = 0
    divided: int = 0
    free: int = 0
    issued: int = 0
    exp: int = 0
    scan: int = 0
    vector: int = 0
    tapped: int = 0
    own: tuple[int, ...] = ()
    ready: tuple[tuple[int, ...], ...] = ()
    bursts: tuple[tuple[int, int], ...] = ()
    drains: tuple[_Drain, ...] = ()
    lead: int = 0
    before: "_Placement | None" = None
    taken: tuple[int, ...] = ()

    def cost(self) -> tuple[int, int]:
        """The least is the best: the time of the array and of the banks, then P in between."""
        banks = sum(max(0, bank - self.free) for bank in self.banks)
        return _WEIGHT * self.free + banks, self.lead

    def order(self) -> Order:
        """The order that led here."""
        due: list[int] = []
        score_banks: list[int] = []
        value_banks: list[int] = []
        one = self
        while one.before is not None:
            if one.used > one.before.used:
                due.append(one.made - 1)
                value_banks += one.taken[::-1]
            else:
                score_banks += one.taken
            one = one.before
        return Order(self.free, due[::-1], score_banks[::-1], value_banks[::-1])


class _Search:
    """Continues placements.

    Parameters
    ----------
    pace, units, serial, pooled : as for `order`.
    """

    def __init__(self, pace: Pace, units: Sequence[Work], serial: bool, pooled: bool) -> None:
        self.pace, self.units, self.serial = pace, units, serial
        banks = range(pace.config.acc_banks)
        self._score_banks = banks if pooled else banks[: pace.score_banks]
        self._value_banks = banks if pooled else banks[pace.score_banks :]

    def scores(self, one: _Placement) -> _Placement:
        """The next unit's scores, in the bank that is free first."""
        pace, unit, banks = self.pace, self.units[one.made], list(one.banks)
        bank = min((n for n in self._score_banks if n not in one.own), key=banks.__getitem__)
        free = max(one.free, banks[bank], one.issued) + pace.scores(unit)
        exp = begin = max(one.exp, free + pace.to_exp)
        times = []
        for keys in unit.pieces:
            exp += pace.exp(unit.rows, keys)
            times.append(exp + pace.to_values)
        banks[bank] = exp + pace.from_exp
        bursts, drains, vector = one.bursts, one.drains, one.vector
        if pace.crowded:
            burst = begin - pace.write_lag, exp - pace.write_lag
            bursts = (*bursts[-2:], burst)
            drains = self._hold(drains, (burst,), banks)
            vector = max([vector, *(end for _, _, end in drains)])
        made = one.made + 1
        issued = one.issued + _DISPATCH * (1 + len(unit.pieces))
        placed = replace(
            one,
            banks=tuple(banks),
            made=made,
            free=free,
            issued=issued,
            exp=exp,
            vector=vector,
            ready=(*one.ready, tuple(times)),
            bursts=bursts,
            drains=drains,
            lead=max(one.lead, made - one.used),
            before=one,
            taken=(bank,),
        )
        return self._divide(placed) if self.serial else placed

    def _divide(self, one: _Placement) -> _Placement:
        """The last unit's probabilities are summed, and, with the last ones, divided."""
        pace, unit = self.pace, self.units[one.made - 1]
        scan = max(one.scan, one.exp) + pace.scan(unit)
        if not unit.last:
            return replace(one, scan=scan, issued=one.issued + _DISPATCH)
        vector, ready = max(one.vector, scan + pace.to_divide), list(one.ready)
        for member in range(one.divided, one.made):
            vector += pace.divide(self.units[member])
            at = member - one.used
            ready[at] = (vector + pace.from_divide,) * len(ready[at])
        issued = one.issued + _DISPATCH * (2 + one.made - one.divided)
        return replace(
            one, scan=scan, vector=vector, ready=tuple(ready), divided=one.made, issued=issued
        )

    def values(self, one: _Placement) -> _Placement:
        """The next unit's product with the values; a new result is made in the first free banks."""
        pace, unit, banks = self.pace, self.units[one.used], list(one.banks)
        own, taken = one.own, one.taken[:0]
        if unit.first:
            own = taken = tuple(sorted(self._value_banks, key=banks.__getitem__)[: len(pace.parts)])
        free, issued, tapped, fresh = one.free, one.issued, one.tapped, unit.first
        begun, ends = -1, [0] * len(own)
        for keys, at in zip(unit.pieces, one.ready[0], strict=True):
            for part, features in enumerate(pace.parts):
                start = max(free, at, issued, banks[own[part]] if fresh else 0)
                if part == 0 and not fresh and not self.serial:
                    start = max(start, tapped)
                begun = start if begun < 0 else begun
                free = ends[part] = start + pace.values(unit, keys, features)
                if part == 0 and features <= pace.config.columns:
                    tapped = free + pace.tap_period
                issued += _DISPATCH
            fresh = False
        vector, drains = one.vector, one.drains
        if unit.last:
            issued += _DISPATCH * (1 + len(own))
            for bank, features, end in zip(own, pace.parts, ends, strict=True):
                begin = max(vector, end + pace.to_vector)
                drain = bank, begin, begin + pace.drain(unit, features)
                held = self._hold((drain,), one.bursts, banks)
                vector, drains = held[0][2], (*drains[-2:], *held)
            own = ()
        placed = replace(
            one,
            banks=tuple(banks),
            used=one.used + 1,
            free=free,
            issued=issued,
            vector=vector,
            tapped=tapped,
            own=own,
            ready=one.ready[1:],
            drains=drains,
            before=one,
            taken=taken,
        )
        return self._starve(placed, begun) if self.serial else placed

    @staticmethod
    def _starve(one: _Placement, begun: int) -> _Placement:
        """A product that has `begun` takes a row of P a cycle: what sums and divides P waits."""
        late = one.free - begun
        pending = any(at > begun for times in one.ready for at in times)
        ready = tuple(tuple(at + late * (at > begun) for at in times) for times in one.ready)
        scan = one.scan + late * (one.scan > begun)
        return replace(one, scan=scan, vector=one.vector + late * pending, ready=ready)

    def _hold(
        self, drains: Sequence[_Drain], bursts: Sequence[tuple[int, int]], banks: list[int]
    ) -> tuple[_Drain, ...]:
        """The drains, which wait while exp writes in bursts; sets when their banks are free."""
        result: list[_Drain] = []
        behind = 0
        for bank, begin, end in drains:
            late = max(0, behind - begin)
            begin, behind = begin + late, end + late
            for first, last in bursts:
                if first < behind and begin < last:
                    behind += last - max(begin, first)
            banks[bank] = max(banks[bank], behind + self.pace.from_vector)
            result.append((bank, begin, behind))
        return tuple(result)
