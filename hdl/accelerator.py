# SPDX-License-Identifier: Apache-2.0
"""The accelerator: scheduler, T tiles in lock-step, reduction tree, gather network, host port."""

from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from afternorm.config import Config
from afternorm.isa import Engine, Flag
from afternorm.memory_map import ADDRESS_BITS, Status, host_width
from hdl.arith.delay import delay
from hdl.gather import Gather
from hdl.host import HostPort
from hdl.once import once
from hdl.reduce.tree import ReductionTree
from hdl.registers import Registers
from hdl.scheduler.scheduler import Scheduler
from hdl.tile import TILE_ENGINES, Tile


class Accelerator(wiring.Component):
    """The whole accelerator behind one host port.

    Parameters
    ----------
    config : every size.

    Members
    -------
    request : stream in. Host requests: ``{address, write, data}`` from the low bits up,
        mapped by `afternorm.memory_map`.
    response : stream out. The word of each read, in order.
    interrupt : out. The program is done, or stopped with an error.
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
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.host = host = HostPort(config=c)
        m.submodules.registers = registers = Registers()
        m.domains.machine = machine = ClockDomain(local=True)
        m.d.comb += [
            machine.clk.eq(ClockSignal()),
            machine.rst.eq(ResetSignal(allow_reset_less=True) | registers.reset),
        ]
        in_machine = DomainRenamer("machine")
        scheduler = Scheduler(config=c)
        gather = Gather(config=c)
        tree = ReductionTree(config=c)
        tiles = [once(Tile, config=c) for _ in range(c.tiles)]
        m.submodules.scheduler = in_machine(scheduler)
        m.submodules.gather = in_machine(gather)
        m.submodules.tree = in_machine(tree)
        for number, tile in enumerate(tiles):
            m.submodules[f"tile{number}"] = in_machine(tile)
            m.d.comb += tile.number.eq(number)
        # All tiles do the same in every cycle: what one answers, all do.
        tile = tiles[0]

        wiring.connect(m, wiring.flipped(self.request), host.request)
        wiring.connect(m, wiring.flipped(self.response), host.response)
        m.d.comb += [
            scheduler.program_valid.eq(host.program_valid),
            scheduler.program_index.eq(host.program_index),
            scheduler.program_granules.eq(host.program_granules),
            scheduler.program_data.eq(host.program_data),
            scheduler.start.eq(registers.start),
            scheduler.start_index.eq(registers.start_index),
            registers.write.eq(host.register_write),
            registers.index.eq(host.register_index),
            registers.w_data.eq(host.register_out),
            host.register_in.eq(registers.r_data),
            registers.status.eq(scheduler.status),
            registers.error.eq(scheduler.error),
            registers.error_index.eq(scheduler.error_index),
            registers.waiting.eq(scheduler.waiting),
            registers.starved.eq(scheduler.starved),
            registers.operand_read.eq(tile.operand_read),
            registers.row_issued.eq(tile.row_issued),
            registers.result_written.eq(tile.result_written),
            self.interrupt.eq(
                (scheduler.status == Status.DONE) | (scheduler.status == Status.ERROR)
            ),
        ]

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
        wiring.connect(m, scheduler.o_gather, gather.i)
        for signal in ("early", "done", "busy"):
            m.d.comb += getattr(scheduler, signal)[Engine.GATHER].eq(getattr(gather, signal))
        m.d.comb += [
            registers.conflict[Engine.GATHER].eq(gather.conflict),
            registers.busy.eq(scheduler.busy),
        ]

        m.d.comb += [
            gather.read.ready.eq(tile.gather_read.ready),
            gather.write.ready.eq(tile.gather_write.ready),
        ]
        # The reduce engines flag the overflows of statistics; those of vector passes are left.
        passes = tree.overflow.any() & ~delay(m, tile.tree_statistics, tree.latency)
        flags = [passes << Flag.VECTOR_OVERFLOW]
        for number, each in enumerate(tiles):
            wiring.connect(m, each.tree, tree.tiles[number])
            wiring.connect(m, host.tiles[number], each.host)
            m.d.comb += [
                each.tree_overflow.eq(tree.overflow),
                each.gather_read.valid.eq(gather.read.valid),
                each.gather_read.address.eq(gather.read.address),
                gather.tile_data[number].eq(each.gather_read.data),
                each.gather_write.valid.eq(gather.write.valid),
                each.gather_write.address.eq(gather.write.address),
                each.gather_write.data.eq(gather.write.data),
            ]
            flags.append(each.flags)
        m.d.sync += registers.flags.eq(reduce(or_, flags))
        return m
