# SPDX-License-Identifier: Apache-2.0
"""The accelerator: scheduler, T tiles in lock-step, reduction tree, gather network, its ports."""

from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from afternorm.config import Config
from afternorm.isa import DRAM_ADDRESS, Engine, Flag
from afternorm.memory_map import ADDRESS_BITS, host_width
from hdl.arith.delay import delay
from hdl.dma.arbiter import ReadArbiter
from hdl.dma.fetch import Fetch
from hdl.dma.guard import WriteGuard
from hdl.dma.load import LoadEngine
from hdl.dma.store import StoreEngine
from hdl.gather import Gather
from hdl.host import HostPort
from hdl.interfaces import DramRead, DramWrite
from hdl.matmul.engine import offer_to_row
from hdl.once import once
from hdl.reduce.tree import ReductionTree
from hdl.registers import Registers
from hdl.scheduler.scheduler import Scheduler
from hdl.tile import TILE_ENGINES, Tile


class Accelerator(wiring.Component):
    """The whole accelerator, between a host port and DRAM.

    Parameters
    ----------
    config : every size.

    Members
    -------
    request : stream in. Host requests: ``{address, write, data}`` from the low bits up,
        mapped by `afternorm.memory_map`.
    response : stream out. The word of each read, in order.
    interrupt : out. An enabled cause is set; see `afternorm.register_map`.
    dram_read, dram_write : out. Programs are read, and what LOAD and STORE move.
    bus_error, bus_error_address : in. DRAM answered with an error, for the beat or burst at that
        byte: the machine stops.  They hold until `bus_reset`, which lasts until they are gone;
        where DRAM knows no errors, they are 0.
    bus_reset : out. The machine is being reset: no request will come but what was begun.
    """

    def __init__(self, *, config: Config):
        self.config = config
        width = host_width(config)
        request = data.StructLayout({"address": ADDRESS_BITS, "write": 1, "data": width})
        super().__init__(
            {
                "request": In(stream.Signature(request)),
                "response": Out(stream.Signature(width)),
                "interrupt": Out(1),
                "dram_read": Out(DramRead(config)),
                "dram_write": Out(DramWrite(config)),
                "bus_error": In(1),
                "bus_error_address": In(DRAM_ADDRESS),
                "bus_reset": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.host = host = HostPort(config=c)
        m.submodules.registers = registers = Registers(config=c)
        m.domains.machine = machine = ClockDomain(local=True)
        m.d.comb += [
            machine.clk.eq(ClockSignal()),
            machine.rst.eq(registers.machine_reset),
        ]
        in_machine = DomainRenamer("machine")
        scheduler = Scheduler(config=c, offer_to_row=offer_to_row(c))
        fetch = Fetch(config=c)
        gather = Gather(config=c)
        load = LoadEngine(config=c)
        store = StoreEngine(config=c)
        tree = ReductionTree(config=c)
        tiles = [once(Tile, config=c) for _ in range(c.tiles)]
        m.submodules.scheduler = in_machine(scheduler)
        m.submodules.fetch = in_machine(fetch)
        m.submodules.gather = in_machine(gather)
        m.submodules.load = in_machine(load)
        m.submodules.store = in_machine(store)
        m.submodules.tree = in_machine(tree)
        for number, tile in enumerate(tiles):
            m.submodules[f"tile{number}"] = in_machine(tile)
            m.d.comb += tile.number.eq(number)
        # All tiles do the same in every cycle: what one answers, all do.
        tile = tiles[0]

        wiring.connect(m, wiring.flipped(self.request), host.request)
        wiring.connect(m, wiring.flipped(self.response), host.response)
        m.d.comb += [
            scheduler.start.eq(registers.start),
            scheduler.stop.eq(registers.stop),
            scheduler.bus_error.eq(self.bus_error),
            fetch.start.eq(registers.start),
            fetch.address.eq(registers.program),
            fetch.halt.eq(scheduler.halt),
            registers.write.eq(host.register_write),
            registers.index.eq(host.register_index),
            registers.w_data.eq(host.register_out),
            registers.strobe.eq(host.register_strobe),
            host.register_in.eq(registers.r_data),
            registers.status.eq(scheduler.status),
            registers.error.eq(scheduler.error),
            registers.error_index.eq(scheduler.error_index),
            registers.error_address.eq(self.bus_error_address),
            registers.waiting.eq(scheduler.waiting),
            registers.starved.eq(scheduler.starved),
            registers.operand_read.eq(tile.operand_read),
            registers.row_issued.eq(tile.row_issued),
            registers.result_written.eq(tile.result_written),
            scheduler.row.eq(tile.row_issued),
            scheduler.last_row.eq(tile.last_row_issued),
            registers.row_seen.eq(scheduler.o_row),
            registers.lost.eq(scheduler.o_lost),
            self.interrupt.eq(registers.interrupt),
            self.bus_reset.eq(registers.reset),
        ]

        # The ways to DRAM outlive a reset of the machine, until everything under way has come.
        m.submodules.arbiter = arbiter = ReadArbiter(config=c, ports=2)
        m.submodules.guard = guard = WriteGuard(config=c)
        m.d.comb += [
            arbiter.flush.eq(registers.reset),
            guard.flush.eq(registers.reset),
            registers.unsettled.eq(~arbiter.idle | ~guard.idle | self.bus_error),
        ]
        wiring.connect(m, fetch.o, scheduler.i)
        wiring.connect(m, fetch.dram, arbiter.readers[0])
        wiring.connect(m, load.read, arbiter.readers[1])
        wiring.connect(m, store.write, guard.writer)
        wiring.connect(m, arbiter.dram, wiring.flipped(self.dram_read))
        wiring.connect(m, guard.dram, wiring.flipped(self.dram_write))

        for engine in TILE_ENGINES:
            name = engine.name.lower()
            source = getattr(scheduler, f"o_{name}")
            m.d.comb += source.ready.eq(getattr(tile, f"i_{name}").ready)
            for each in tiles:
                target = getattr(each, f"i_{name}")
                m.d.comb += [target.valid.eq(source.valid), target.payload.eq(source.payload)]
            for signal in ("early", "done", "busy"):
                m.d.comb += getattr(scheduler, signal)[engine].eq(getattr(tile, signal)[engine])
            m.d.comb += registers.conflict[engine].eq(tile.conflict[engine])
        for engine, unit in (
            (Engine.GATHER, gather),
            (Engine.LOAD, load),
            (Engine.STORE, store),
        ):
            wiring.connect(m, getattr(scheduler, f"o_{engine.name.lower()}"), unit.i)
            for signal in ("early", "done", "busy"):
                m.d.comb += getattr(scheduler, signal)[engine].eq(getattr(unit, signal))
            m.d.comb += registers.conflict[engine].eq(unit.conflict)
        m.d.comb += registers.busy.eq(scheduler.busy)

        # What the shared engines ask of the tiles' memories, by port of a tile.
        reads = {
            "gather_read": gather.read,
            "store_blocks": store.read,
            "store_floats": store.vector,
        }
        writes = {
            "gather_write": gather.write,
            "load_blocks": load.write,
            "load_floats": load.vector,
        }
        for name, port in (reads | writes).items():
            m.d.comb += port.ready.eq(getattr(tile, name).ready)
            for each in tiles:
                target = getattr(each, name)
                m.d.comb += [target.valid.eq(port.valid), target.address.eq(port.address)]
                if name in writes:
                    m.d.comb += target.data.eq(port.data)
        # The reduce engines flag the overflows of statistics; those of vector passes are left.
        passes = tree.overflow.any() & ~delay(m, tile.tree_statistics, tree.latency)
        flags = [passes << Flag.VECTOR_OVERFLOW]
        for number, each in enumerate(tiles):
            wiring.connect(m, each.tree, tree.tiles[number])
            wiring.connect(m, host.tiles[number], each.host)
            m.d.comb += [
                each.tree_overflow.eq(tree.overflow),
                each.load_enable.eq(load.tiles[number]),
                gather.tile_data[number].eq(each.gather_read.data),
                store.tile_blocks[number].eq(each.store_blocks.data),
                store.tile_floats[number].eq(each.store_floats.data),
            ]
            flags.append(each.flags)
        m.d.sync += registers.flags.eq(reduce(or_, flags))
        return m
