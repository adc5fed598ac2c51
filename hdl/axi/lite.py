# SPDX-License-Identifier: Apache-2.0
"""The AXI4-Lite subordinate: the registers of `afternorm.register_map` on a bus.

Accesses become requests to the host port, one at a time; a read and a write that
wait for each other take turns.  Address and data of a write may come in any
order.  The two low bits of an offset are ignored.  Bytes without a strobe keep
what they are: in bits that are written by a one, they do nothing.

An offset without a register is answered with SLVERR and has no effect; a write
to a register that can only be read, with OKAY, and has none either.

If the host port is free, a write is answered four cycles after its last part was
taken; a read takes the host port's five cycles more.  No output depends on an input of the
same cycle.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from afternorm.config import Config
from afternorm.memory_map import ADDRESS_BITS, INDEX_BITS, REGISTER_BITS, host_width
from afternorm.register_map import OFFSET_BITS, REGISTER_BYTES, register_map
from hdl.axi.ports import LITE, OKAY, SLVERR, lite_members


class AxiLite(wiring.Component):
    """Registers on AXI4-Lite.

    Parameters
    ----------
    config : sizes, for the host port's width.

    Members
    -------
    s_axil_* : the bus.
    request, response : streams out and in. The host port, seen from its user; see
        `hdl.host.HostPort`.
    """

    def __init__(self, *, config: Config):
        self.config = config
        width = host_width(config)
        request = data.StructLayout({"address": ADDRESS_BITS, "write": 1, "data": width})
        super().__init__(
            {
                **lite_members(),
                "request": Out(stream.Signature(request)),
                "response": In(stream.Signature(width)),
            }
        )

    def elaborate(self, platform):
        m = Module()

        def port(name: str) -> Signal:
            return getattr(self, f"{LITE}{name}")

        # What has come of each channel and is not yet answered.
        word = exact_log2(REGISTER_BYTES)
        write_index = Signal(OFFSET_BITS - word)
        read_index = Signal(OFFSET_BITS - word)
        word_data = Signal(REGISTER_BITS)
        keep = Signal(REGISTER_BYTES)
        held = {name: Signal(name=f"{name}_held") for name in ("aw", "w", "ar")}
        for channel, stored, value in (
            ("aw", write_index, port("awaddr")[word:]),
            ("ar", read_index, port("araddr")[word:]),
            ("w", Cat(word_data, keep), Cat(port("wdata"), ~port("wstrb"))),
        ):
            m.d.comb += port(f"{channel}ready").eq(~held[channel])
            with m.If(port(f"{channel}valid") & ~held[channel]):
                m.d.sync += [held[channel].eq(1), stored.eq(value)]
        to_write = held["aw"] & held["w"] & ~port("bvalid")
        to_read = held["ar"] & ~port("rvalid")

        writes = Signal()
        mapped = Signal()
        index = Mux(writes, write_index, read_index)
        with m.Switch(index):
            with m.Case(*(entry.index for entry in register_map(self.config))):
                m.d.comb += mapped.eq(1)
        address = self.request.payload.address
        m.d.comb += [
            address[:INDEX_BITS].eq(index),
            self.request.payload.write.eq(writes),
            self.request.payload.data.eq(Cat(word_data, keep)),
        ]

        def answer(response) -> None:
            with m.If(writes):
                m.d.sync += [port("bvalid").eq(1), port("bresp").eq(response)]
            with m.Else():
                m.d.sync += [port("rvalid").eq(1), port("rresp").eq(response)]
            m.next = "IDLE"

        for channel in ("b", "r"):
            with m.If(port(f"{channel}valid") & port(f"{channel}ready")):
                m.d.sync += port(f"{channel}valid").eq(0)
                answered = ("aw", "w") if channel == "b" else ("ar",)
                m.d.sync += [held[name].eq(0) for name in answered]
        with m.FSM():
            with m.State("IDLE"):
                with m.If(to_write | to_read):
                    # After a write a read comes first, and the other way round.
                    m.d.sync += writes.eq(Mux(writes, ~to_read, to_write))
                    m.next = "LOOK"
            with m.State("LOOK"):
                with m.If(mapped):
                    m.next = "ASK"
                with m.Else():
                    m.d.sync += port("rdata").eq(0)
                    answer(SLVERR)
            with m.State("ASK"):
                m.d.comb += self.request.valid.eq(1)
                with m.If(self.request.ready):
                    with m.If(writes):
                        answer(OKAY)
                    with m.Else():
                        m.next = "READ"
            with m.State("READ"):
                m.d.comb += self.response.ready.eq(1)
                with m.If(self.response.valid):
                    m.d.sync += port("rdata").eq(self.response.payload)
                    answer(OKAY)
        return m
