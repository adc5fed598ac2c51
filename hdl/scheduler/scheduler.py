# SPDX-License-Identifier: Apache-2.0
"""The scheduler: legality, one front end an engine, semaphores, whose the array's idle slots are.

Instructions come in order from `hdl.dma.fetch`, are checked, and put into the
queue of their engine; a full queue holds up those behind it.  It has no policy
of its own: what runs beside what is decided by the program's semaphores alone.

END is the last that is taken; the machine is done when every engine is idle.  An
illegal instruction stops it before it has any effect, misuse of a semaphore at
once, and a watchdog when for `watchdog_cycles` cycles nothing was granted,
signalled, dispatched or executed, not counting those of waiting for DRAM.  So does an
error on the way to DRAM.  At `stop` nothing more reaches an engine; the machine has
stopped when the engines are done with what they had.  After an error or a stop the
queues still hold instructions: only a reset makes the machine ready for another start.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from afternorm.config import Config
from afternorm.isa import (
    ENGINE_OF,
    INSTRUCTION_BITS,
    SIGNALS,
    WAITS,
    Engine,
    Error,
    Opcode,
)
from afternorm.memory_map import Lost, Status
from hdl.interfaces import body_layout, engine_payload
from hdl.scheduler.checker import HEADER_LAYOUT, Checker
from hdl.scheduler.frontend import IN_FLIGHT, INDEX_BITS, LEAVE_TO_OFFER, Frontend
from hdl.scheduler.lost_slots import LostSlots
from hdl.scheduler.semaphores import Semaphores

OPCODES = {
    engine: tuple(opcode for opcode, its in ENGINE_OF.items() if its == engine) for engine in Engine
}


class Scheduler(wiring.Component):
    """Takes a program and feeds the engines.

    Parameters
    ----------
    config : sizes.
    offer_to_row : cycles from the offer of a product to its first row; see `hdl.matmul.engine`.

    Members
    -------
    start : in. Begin; ignored while a program runs, and after an error or a stop.
    stop : in. Hand nothing more to the engines; holds until no program runs.
    bus_error : in. DRAM answered with an error; holds until a reset.
    i : stream in. The program's instructions, to END.
    halt : out. No program runs: no instruction is wanted.
    o_<engine> : streams out, one an engine.
    early, done, busy : in. The engines' pulses, and that they work; by engine.
    status, error, error_index : out. See `afternorm.memory_map`; the first instruction has index 0.
    waiting, starved : out. By engine, for the counters; only while the engine is not busy.
    row, last_row : in. A row of A is requested; it is the last of its instruction.
    o_row, o_lost : out. A row of A; else whose slot it is. See `hdl.scheduler.lost_slots`.
    """

    def __init__(self, *, config: Config, offer_to_row: int):
        self.config = config
        self.offer_to_row = offer_to_row
        engines = len(Engine)
        streams = {
            f"o_{engine.name.lower()}": Out(stream.Signature(engine_payload(*OPCODES[engine])))
            for engine in Engine
        }
        super().__init__(
            {
                "start": In(1),
                "stop": In(1),
                "bus_error": In(1),
                "i": In(stream.Signature(INSTRUCTION_BITS)),
                "halt": Out(1),
                **streams,
                "early": In(engines),
                "done": In(engines),
                "busy": In(engines),
                "status": Out(3),
                "error": Out(3),
                "error_index": Out(INDEX_BITS),
                "waiting": Out(engines),
                "starved": Out(engines),
                "row": In(1),
                "last_row": In(1),
                "o_row": Out(1),
                "o_lost": Out(len(Lost)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        engines = list(Engine)

        m.submodules.checker = checker = Checker(config=c)
        m.submodules.semaphores = semaphores = Semaphores(
            count=c.semaphores, waiters=len(engines), signallers=2 * len(engines)
        )
        held = Signal(init=1)  # what the front ends see of `halt`, which many wait for
        m.d.sync += held.eq(self.halt)
        frontends = []
        for engine in engines:
            frontend = Frontend(config=c, opcodes=OPCODES[engine])
            m.submodules[f"frontend_{engine.name.lower()}"] = frontend
            frontends.append(frontend)
            wiring.connect(m, frontend.o, wiring.flipped(getattr(self, f"o_{engine.name.lower()}")))
            m.d.comb += [
                frontend.early.eq(self.early[engine]),
                frontend.done.eq(self.done[engine]),
                frontend.halt.eq(held),
                frontend.grant.eq(semaphores.grant[engine]),
                semaphores.ask[engine].eq(frontend.ask),
                semaphores.ask_set[engine].eq(frontend.ask_set),
                semaphores.signal[2 * engine].eq(frontend.signal),
                semaphores.signal[2 * engine + 1].eq(frontend.signal_early),
                self.waiting[engine].eq(frontend.waiting & ~self.busy[engine]),
                self.starved[engine].eq(frontend.starved & ~self.busy[engine]),
            ]
        # Instructions that an engine has taken and not finished; seen a cycle late.
        taking = Signal(len(engines))
        finishing = Signal(len(engines))
        executing = [taking.any()]
        for engine in engines:
            taken = Signal(range(IN_FLIGHT + 1), name=f"taken_{engine.name.lower()}")
            offered = getattr(self, f"o_{engine.name.lower()}")
            m.d.sync += [
                taking[engine].eq(offered.valid & offered.ready),
                finishing[engine].eq(self.done[engine]),
                taken.eq(taken + taking[engine] - finishing[engine]),
            ]
            executing.append(taken.any())
        idle = Signal()
        m.d.comb += idle.eq(Cat(frontend.idle for frontend in frontends).all())

        index = Signal(INDEX_BITS)
        instruction = Signal(INSTRUCTION_BITS, reset_less=True)
        header = HEADER_LAYOUT(instruction[: HEADER_LAYOUT.size])
        body = instruction[HEADER_LAYOUT.size :]
        dispatched = Signal()
        wanted = Signal(len(engines))
        engine_now = Signal(Engine)
        with m.Switch(header.opcode):
            for opcode, engine in ENGINE_OF.items():
                with m.Case(opcode):
                    m.d.comb += engine_now.eq(engine)
            with m.Case(Opcode.SYNC):
                m.d.comb += engine_now.eq(body_layout(Opcode.SYNC)(body[:3]).engine)
        m.d.comb += wanted.eq(1 << engine_now)
        dispatching = Signal()
        for engine, frontend in zip(engines, frontends, strict=True):
            queued = frontend.i.payload
            m.d.comb += [
                frontend.i.valid.eq(dispatching & wanted[engine]),
                *(queued.waits[n].eq(header[f"wait{n}"]) for n in range(WAITS)),
                *(queued.signals[n].eq(header[f"signal{n}"]) for n in range(SIGNALS)),
                queued.early.eq(header.early),
                queued.index.eq(index),
                queued.instruction.opcode.eq(header.opcode),
                queued.instruction.drain.eq(header.drain),
                queued.instruction.body.eq(body),
            ]
        m.d.comb += dispatched.eq(
            Cat(frontend.i.valid & frontend.i.ready for frontend in frontends).any()
        )

        matmul = frontends[Engine.MATMUL]
        m.submodules.lost_slots = lost_slots = LostSlots(
            config=c, latency=LEAVE_TO_OFFER + self.offer_to_row
        )
        names = [*(header[f"signal{n}"] for n in range(SIGNALS)), header.early]
        m.d.comb += [
            lost_slots.names.eq(Cat(names)),
            lost_slots.engine.eq(engine_now),
            lost_slots.blocked.eq(dispatching & ~dispatched),
            lost_slots.asking.eq(matmul.asking),
            lost_slots.waits.eq(matmul.waits),
            lost_slots.available.eq(semaphores.available),
            lost_slots.empty.eq(matmul.empty),
            lost_slots.entered.eq(matmul.entered),
            lost_slots.row.eq(self.row),
            lost_slots.last.eq(self.last_row),
            self.o_row.eq(lost_slots.o_row),
            self.o_lost.eq(lost_slots.o_lost),
        ]

        progress = Signal()
        running = Signal()
        quiet = Signal(range(c.watchdog_cycles + 1))
        active = Signal(len(engines))
        m.d.sync += active.eq(self.busy | self.done | self.early | semaphores.grant)
        m.d.comb += [
            progress.eq(dispatched | checker.done | active.any()),
            running.eq(self.status == Status.RUNNING),
            self.halt.eq(~running | self.stop),
            checker.instruction.eq(instruction),
        ]
        with m.If(progress | ~running):
            m.d.sync += quiet.eq(0)
        with m.Elif(~self.i.ready):
            m.d.sync += quiet.eq(quiet + 1)
        expired = quiet == c.watchdog_cycles

        def stop(code: Error, at) -> None:
            m.d.sync += [
                self.status.eq(Status.ERROR),
                self.error.eq(code),
                self.error_index.eq(at),
            ]

        # Of the heads that wait when the watchdog expires, the oldest is to blame: a register a
        # step, as nothing moves while the watchdog counts.
        blamed = Const((1 << INDEX_BITS) - 1)
        for frontend in frontends:
            oldest = Signal(INDEX_BITS, name="oldest", reset_less=True)
            older = frontend.waiting & (frontend.index < blamed)
            m.d.sync += oldest.eq(Mux(older, frontend.index, blamed))
            blamed = oldest

        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += [
                        index.eq(0),
                        self.status.eq(Status.RUNNING),
                        self.error.eq(Error.NONE),
                        self.error_index.eq(0),
                    ]
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += self.i.ready.eq(~self.halt)
                m.d.sync += instruction.eq(self.i.payload)
                with m.If(self.halt):
                    m.next = "STOPPED"
                with m.Elif(self.i.valid):
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += checker.start.eq(1)
                m.next = "VERDICT"
            with m.State("VERDICT"):
                with m.If(checker.done):
                    with m.If(self.halt):
                        m.next = "STOPPED"
                    with m.Elif(checker.error != Error.NONE):
                        stop(checker.error, index)
                        m.next = "STOPPED"
                    with m.Elif(header.opcode == Opcode.END):
                        m.next = "FINISH"
                    with m.Else():
                        m.next = "DISPATCH"
            with m.State("DISPATCH"):
                m.d.comb += dispatching.eq(~self.halt)
                with m.If(dispatched):
                    m.d.sync += index.eq(index + 1)
                    m.next = "FETCH"
            with m.State("FINISH"):
                with m.If(~self.halt & idle & ~self.busy.any()):
                    m.d.sync += self.status.eq(Status.DONE)
                    m.next = "IDLE"
            with m.State("STOPPED"):
                pass  # until reset
        # Only once the front ends know of it: they may have offered something until then.
        with m.If(running & self.stop & held & ~Cat(executing).any() & ~self.busy.any()):
            m.d.sync += self.status.eq(Status.STOPPED)
        with m.If(running & semaphores.error):
            stop(Error.SEMAPHORE, index)
        with m.If(running & expired):
            stop(Error.DEADLOCK, blamed)
        with m.If(running & self.bus_error):
            stop(Error.BUS, index)
        return m
