# SPDX-License-Identifier: Apache-2.0
"""Long delays of a pipeline's side signals, in memory instead of registers.

A circular buffer of N words is written at one place and read at the next, which
was written N - 1 cycles ago; the read takes the last cycle.  Up to 16 cycles, an
ECP5 needs 6 LUT4 and 4 registers for 4 bits, instead of 4 registers a cycle.
"""

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.memory import Memory

from hdl.arith.delay import delay

_REGISTERS = 4
"""Delays up to this many cycles are registers."""


def delay_line(m: Module, signal: Any, cycles: int, *, name: str) -> Any:
    """`signal` as it was `cycles` cycles ago, without reset, as `hdl.arith.delay.delay`.

    Parameters
    ----------
    m
        The module that gets the memory, as the submodule `name`.
    signal
        A value or a view of any shape.
    cycles
        The delay, at least 0.
    """
    if cycles <= _REGISTERS:
        return delay(m, signal, cycles, name=name)
    # The two places are never the same.
    memory = Memory(shape=signal.shape(), depth=cycles, init=[], attrs={"no_rw_check": 1})
    m.submodules[name] = memory
    write, read = memory.write_port(), memory.read_port()
    place = Signal(range(cycles), name=f"{name}_place")
    following = Signal(range(cycles), name=f"{name}_following")
    m.d.comb += [
        following.eq(Mux(place == cycles - 1, 0, place + 1)),
        write.addr.eq(place),
        write.data.eq(signal),
        write.en.eq(1),
        read.addr.eq(following),
    ]
    m.d.sync += place.eq(following)
    return read.data
