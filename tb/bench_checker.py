# SPDX-License-Identifier: Apache-2.0
"""The checker's verdict on each instruction word, against the golden machine's."""

import json
from pathlib import Path

import cocotb
from cocotb.triggers import RisingEdge

from tb.stream import bounded, parameters, start


@cocotb.test()
async def verdicts(dut):
    """Parameters: ``cases``, a JSON file of words (hex) and error codes; ``latency``, the bound."""
    options = parameters()
    cases = json.loads(Path(options["cases"]).read_text())
    dut.start.value = 0
    await start(dut)

    async def verdict() -> int:
        while True:
            await RisingEdge(dut.clk)
            if int(dut.done.value):
                return int(dut.error.value)

    for word, expected in cases:
        dut.instruction.value = int(word, 16)
        dut.start.value = 1
        await RisingEdge(dut.clk)
        dut.start.value = 0
        error = await bounded(verdict(), cycles=options["latency"] + 1)
        assert error == expected, f"{word}: error {error}, golden {expected}"
