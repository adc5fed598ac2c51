# SPDX-License-Identifier: Apache-2.0
"""The scratchpad of a tile: MX blocks in independent banks.

Three readers and one writer are served a cycle.  A bank (chosen by the top
address bits) has one read and one write port, so readers of different banks do
not meet.  Where they do, operand A goes before operand B, and B before the
shared third port, on which the vector unit goes before the statistics scan, the
gather network, the store engine and the host.  Of the writers one goes a cycle:
exp unit, vector unit, gather network, load engine, host.

A read accepted in a cycle gives its data `SCRATCHPAD_LATENCY` cycles later: one to the bank's
address register, as the way from there to all block RAMs of a bank is long, one for the memory,
one for the choice between the banks.  A write accepted in a cycle is seen by reads accepted two
cycles later and on; what a read of the same word one cycle later gives is undefined.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from afternorm.config import Config
from hdl.arith.delay import delay
from hdl.interfaces import (
    EXPONENT_BITS,
    SCRATCHPAD_LATENCY,
    OperandRead,
    block_layout,
    scratchpad_read,
    scratchpad_write,
)

SHARED_READERS = ("vector", "scan", "gather", "store", "host")
"""They share a port; the first that asks goes."""
WRITERS = ("exp", "vector", "gather", "load", "host")


def bank_bits(config: Config) -> int:
    """Bits of a bank's number."""
    return exact_log2(config.scratchpad_banks)


def bank_of(config: Config, address: Value) -> Value:
    """The bank in which an address of the scratchpad lies."""
    return address[-bank_bits(config) :]


class Scratchpad(wiring.Component):
    """Scratchpad of MX blocks.

    Parameters
    ----------
    config : sizes; `scratchpad_depth` blocks in `scratchpad_banks` banks.

    Members
    -------
    read_a, read_b, read_vector, read_scan, read_gather, read_store, read_host : read ports,
        one block a request; `ready`, where there is one, says that the request is accepted.
    write_exp, write_vector, write_gather, write_load, write_host : write ports, one block a
        transfer.
    load_enable : in. The block of `write_load` is written (else its transfer has no effect).
    host_mantissas, host_exponent : in. Which half of a block the host writes.
    """

    def __init__(self, *, config: Config):
        self.config = config
        reads = {f"read_{name}": In(scratchpad_read(config)) for name in SHARED_READERS}
        writes = {f"write_{name}": In(scratchpad_write(config)) for name in WRITERS}
        super().__init__(
            {
                "read_a": In(OperandRead(config)),
                "read_b": In(OperandRead(config)),
                **reads,
                **writes,
                "load_enable": In(1),
                "host_mantissas": In(1),
                "host_exponent": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        bank_bits = exact_log2(c.scratchpad_banks)
        word_bits = exact_log2(c.scratchpad_depth) - bank_bits
        layout = block_layout(c.block)

        # Writers: the first in the list that asks is registered, then registered at its bank, then
        # written.
        write_valid = Signal()
        write_address = Signal(bank_bits + word_bits, reset_less=True)
        write_data = Signal(layout, reset_less=True)
        write_mantissas = Signal()
        write_exponent = Signal()
        taken = Const(0)
        for name in WRITERS:
            port = getattr(self, f"write_{name}")
            m.d.comb += port.ready.eq(~taken)
            with m.If(port.valid & port.ready):
                m.d.sync += [write_address.eq(port.address), write_data.eq(port.data)]
            taken = taken | port.valid
        host = self.write_host.valid & self.write_host.ready
        load = self.write_load.valid & self.write_load.ready
        m.d.sync += [
            write_valid.eq(taken & (~load | self.load_enable)),
            write_mantissas.eq(~host | self.host_mantissas),
            write_exponent.eq(~host | self.host_exponent),
        ]

        # Readers: three ports reach the banks; the third one is shared.  Whether A or B has a
        # reader's bank is asked of each of them, before it is known which one goes.
        def bank(port) -> Value:
            return bank_of(c, port.address)

        shared = [getattr(self, f"read_{name}") for name in SHARED_READERS]
        operands = (self.read_a, self.read_b)
        third_address = Signal(bank_bits + word_bits)
        third = Const(0)
        for port in shared:
            meets = Cat(operand.valid & (bank(operand) == bank(port)) for operand in operands)
            m.d.comb += port.ready.eq(~third & ~meets.any())
            with m.If(port.valid & ~third):
                m.d.comb += third_address.eq(port.address)
            third = third | port.valid

        bank_data = delay(m, write_data, 1, name="bank_data")
        words = []
        for number in range(c.scratchpad_banks):
            # A bank that neither A nor B wants reads for the others, who may not care.
            read_address = Signal(word_bits, name=f"read_address{number}", reset_less=True)
            write_to = Signal(word_bits, name=f"write_address{number}", reset_less=True)
            m.d.sync += [
                read_address.eq(third_address[:word_bits]),
                write_to.eq(write_address[:word_bits]),
            ]
            for port in reversed(operands):
                with m.If(port.valid & (bank(port) == number)):
                    m.d.sync += read_address.eq(port.address[:word_bits])
            writes = write_valid & (write_address[word_bits:] == number)

            # Nobody looks at what a bank reads where it is being written.
            relaxed = {"depth": 1 << word_bits, "init": [], "attrs": {"no_rw_check": 1}}
            m.submodules[f"mantissas{number}"] = mantissas = Memory(
                shape=unsigned(8 * c.block), **relaxed
            )
            m.submodules[f"exponents{number}"] = exponents = Memory(
                shape=unsigned(EXPONENT_BITS), **relaxed
            )
            halves = []
            for memory, enable, value in (
                (mantissas, write_mantissas, bank_data.mantissas.as_value()),
                (exponents, write_exponent, bank_data.exponent.as_unsigned()),
            ):
                write, read = memory.write_port(), memory.read_port()
                m.d.sync += write.en.eq(writes & enable)
                m.d.comb += [
                    write.addr.eq(write_to),
                    write.data.eq(value),
                    read.addr.eq(read_address),
                ]
                halves.append(read.data)
            words.append(Cat(*halves))

        addresses = [self.read_a.address, self.read_b.address, third_address]
        for address, ports in zip(addresses, ([self.read_a], [self.read_b], shared), strict=True):
            chosen = delay(m, address[word_bits:], SCRATCHPAD_LATENCY - 1, name="chosen")
            value = Signal(layout, reset_less=True)
            m.d.sync += value.as_value().eq(Array(words)[chosen])
            for port in ports:
                m.d.comb += port.data.eq(value)
        return m
