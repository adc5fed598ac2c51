# SPDX-License-Identifier: Apache-2.0
"""The `valid` that goes along a pipeline."""

from amaranth.hdl import Cat, Module, Signal, Value


def delay_valid(m: Module, valid: Value, cycles: int) -> Value:
    """`valid` as it was `cycles` cycles ago; unlike `hdl.arith.delay`, 0 after a reset."""
    if not cycles:
        return valid
    stages = Signal(cycles, name="valid_stages")
    m.d.sync += stages.eq(Cat(valid, stages))
    return stages[-1]
