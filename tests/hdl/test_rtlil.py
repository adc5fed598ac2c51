# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: Apache-2.0
"""RTLIL: combinational loops are found, and Amaranth is left as it was."""

from contextlib import suppress

import pytest
from amaranth.hdl import Module
from amaranth.hdl._nir import CombinationalCycle, Net, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.rtlil import convert


class Feedback(wiring.Component):  # type: ignore[misc]
    """A bit of what is selected is among what is selected from, a cycle later or in the same."""

    def __init__(self, *, bit: int, domain: str) -> None:
        self.bit = bit
        self.domain = domain
        super().__init__({"index": In(2), "value": Out(8), "selected": Out(2)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.selected.eq(self.value.word_select(self.index, 2))
        m.d[self.domain] += self.value.eq(self.selected[self.bit])
        return m


@pytest.mark.parametrize("bit", [0, 1])
def test_a_loop_through_a_selection_is_found(bit: int) -> None:
    with pytest.raises(CombinationalCycle, match="cycle"):
        convert(Feedback(bit=bit, domain="comb"), name="top")
    body = convert(Feedback(bit=bit, domain="sync"), name="top", clocked=True)["top"]
    assert "$dff" in body


@pytest.mark.parametrize("domain", ["comb", "sync"])
def test_elsewhere_amaranth_checks_bits(domain: str) -> None:
    with suppress(CombinationalCycle):
        convert(Feedback(bit=0, domain=domain), name="top", clocked=True)
    bit = Net.from_const(1)
    assert Value([bit, bit])[1:] == Value(bit)
    with pytest.raises(AssertionError):
        Value([1])
