# SPDX-License-Identifier: Apache-2.0
"""Joins a pseudo-terminal to the UART of a `hdl.board.system.BoardSystem`, bit by bit.

Ends when the other side of the terminal is closed.

Parameters: ``terminal``, its file descriptor; ``divisor``, cycles of a bit; ``noise``, the
probability that a byte is lost, changed or followed by one that nobody sent, in each direction.
"""

import os
import select

import cocotb
from cocotb.triggers import FallingEdge, Timer

from tb.stream import PERIOD_NS, parameters, rng, start

IDLE_BITS = 50
"""How long the line rests before the terminal is asked again."""


class Noise:
    """What becomes of bytes on a bad line."""

    def __init__(self, name, probability):
        self.random, self.probability = rng(name), probability

    def __call__(self, byte):
        """The bytes that arrive instead of one."""
        random = self.random
        if random.random() >= self.probability:
            return [byte]
        return random.choice(
            [[], [byte ^ 1 << random.randrange(8)], [byte, random.randrange(256)], [byte, byte]]
        )


async def to_host(dut, terminal, bit, noise):
    """Bytes from the board's line into the terminal."""
    while True:
        await FallingEdge(dut.tx)
        await Timer(3 * bit // 2, "ns")
        byte = 0
        for place in range(8):
            byte |= int(dut.tx.value) << place
            await Timer(bit, "ns")
        assert int(dut.tx.value) == 1, "no stop bit"
        os.write(terminal, bytes(noise(byte)))


async def to_board(dut, byte, bit, stop):
    """A byte onto the board's line."""
    for level in (0, *(byte >> place & 1 for place in range(8)), stop):
        dut.rx.value = level
        await Timer(bit, "ns")
    dut.rx.value = 1


@cocotb.test()
async def serve(dut):
    options = parameters()
    terminal, bit = options["terminal"], options["divisor"] * PERIOD_NS
    noise = Noise("to the board", options["noise"])
    dut.rx.value = 1
    await start(dut)
    cocotb.start_soon(to_host(dut, terminal, bit, Noise("to the host", options["noise"])))
    while True:
        if not select.select([terminal], [], [], 0)[0]:
            await Timer(IDLE_BITS * bit, "ns")
            continue
        try:
            data = os.read(terminal, 4096)
        except OSError:  # closed
            return
        for byte in data:
            for arrives in noise(byte):
                # Some are lost because their stop bit is.
                stop = int(noise.random.random() >= noise.probability / 4)
                await to_board(dut, arrives, bit, stop)
                if not stop:
                    await Timer(bit, "ns")
