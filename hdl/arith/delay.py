# SPDX-License-Identifier: Apache-2.0
"""Shift registers that keep a pipeline's side signals aligned."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal, Value


def delay(m: Module, signal: Any, cycles: int, *, name: str = "delay") -> Any:
    """`signal` as it was `cycles` cycles ago; `signal` itself for 0 cycles.

    Parameters
    ----------
    m
        The module that gets the registers.
    signal
        A value or a view of any shape.
    cycles
        Registers in a row.
    name
        Name of the registers, which carry no reset: what passes a pipeline has its own valid.

    Raises
    ------
    ValueError
        If `cycles` is negative.
    """
    if cycles < 0:
        raise ValueError(f"cycles must not be negative, not {cycles}")
    for _ in range(cycles):
        register = Signal(signal.shape(), name=name, reset_less=True)
        m.d.sync += register.eq(signal)
        signal = register
    return signal


def delay_valid(m: Module, valid: Value, cycles: int) -> Value:
    """`valid` as it was `cycles` cycles ago; unlike `delay`, 0 after a reset."""
    if not cycles:
        return valid
    stages = Signal(cycles, name="valid_stages")
    m.d.sync += stages.eq(Cat(valid, stages))
    return stages[-1]
