# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: Apache-2.0
"""The sum over the tiles, lane by lane: ``o = tree_sum(tiles)``, broadcast to all tiles.

Neighbours are added, level by level; an odd one at the end of a level is passed
on, delayed by the time of an addition.  The latency is ``ceil(log2(T))`` times that
of an addition (none for one tile, whose floats come straight back), the
throughput one sum a cycle.
"""

from amaranth.hdl import C, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from afternorm.config import Config
from hdl.arith.delay import delay, delay_valid
from hdl.arith.float_add import FloatAdd
from hdl.interfaces import TreePort
from hdl.once import once


def tree_latency(config: Config) -> int:
    """Cycles from the tiles' floats to their sum."""
    return ceil_log2(config.tiles) * once(FloatAdd, fraction_bits=config.fraction_bits).latency


class ReductionTree(wiring.Component):
    """Adder tree over the tiles for each of the E lanes.

    Parameters
    ----------
    config
        Sizes: `tiles`, `lanes`, `fraction_bits`.

    Members
    -------
    tiles : In(TreePort), T of them
        The tiles, which send in the same cycle; the first one's `valid` speaks for all.
    valid : Out(1)
        A sum comes out, `latency` cycles after the floats that it is made of.
    overflow : Out(E)
        An addition of the lane's sum was saturated; only with `valid`.
    """

    def __init__(self, *, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "tiles": In(TreePort(config)).array(config.tiles),
                "valid": Out(1),
                "overflow": Out(config.lanes),
            }
        )

    @property
    def latency(self) -> int:
        """`tree_latency` of the configuration."""
        return tree_latency(self.config)

    def elaborate(self, platform: object) -> Module:
        m = Module()

        valid = delay_valid(m, self.tiles[0].valid, self.latency)
        m.d.comb += self.valid.eq(valid)

        for lane in range(self.config.lanes):
            level = [(tile.o[lane], C(0, 1)) for tile in self.tiles]
            depth = 0
            while len(level) > 1:
                upper = []
                for n in range(0, len(level) - 1, 2):
                    add = once(FloatAdd, fraction_bits=self.config.fraction_bits)
                    m.submodules[f"add_{lane}_{depth}_{n // 2}"] = add
                    (left, left_overflow), (right, right_overflow) = level[n : n + 2]
                    m.d.comb += [add.a.eq(left), add.b.eq(right)]
                    former = delay(m, left_overflow | right_overflow, add.latency, name="former")
                    upper.append((add.o, former | add.overflow))
                if len(level) % 2:
                    last, overflow = level[-1]
                    upper.append(
                        (
                            delay(m, last, add.latency, name="odd"),
                            delay(m, overflow, add.latency, name="odd_overflow"),
                        )
                    )
                level = upper
                depth += 1
            total, overflow = level[0]
            m.d.comb += self.overflow[lane].eq(overflow & valid)
            for tile in self.tiles:
                m.d.comb += tile.i[lane].eq(total)
        return m
