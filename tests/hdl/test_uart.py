# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: Apache-2.0
"""The link's hardware on boards: UART, frames, and block RAM in the place of DRAM."""

import pytest

from afternorm.board.boards import BOARDS
from afternorm.board.memory import BoardMemory
from afternorm.config import preset
from hdl.board.block_dram import BlockDram
from hdl.board.frame_receiver import FrameReceiver
from hdl.board.frame_sender import FrameSender
from hdl.board.uart_receiver import MIN_DIVISOR, UartReceiver
from hdl.board.uart_transmitter import UartTransmitter
from tb.runner import build
from tb.stream import STALLS

DIVISORS = (MIN_DIVISOR, pytest.param(BOARDS["ulx3s"].divisor, marks=pytest.mark.slow))


@pytest.mark.parametrize("divisor", DIVISORS)
def test_receiver(divisor: int, seed: int) -> None:
    build(UartReceiver(divisor=divisor), name="uart_receiver").run(
        "tb.bench_uart", parameters={"divisor": divisor}, testcase="receiver", seed=seed
    )


@pytest.mark.parametrize("divisor", DIVISORS)
def test_transmitter(divisor: int, seed: int) -> None:
    build(UartTransmitter(divisor=divisor), name="uart_transmitter").run(
        "tb.bench_uart", parameters={"divisor": divisor}, testcase="transmitter", seed=seed
    )


@pytest.mark.parametrize("stall", STALLS)
def test_requests_in(stall: float, seed: int) -> None:
    build(FrameReceiver(), name="frame_receiver").run(
        "tb.bench_uart", parameters={"stall": stall}, testcase="frames", seed=seed
    )


@pytest.mark.parametrize("stall", STALLS)
def test_answers_out(stall: float, seed: int) -> None:
    build(FrameSender(), name="frame_sender").run(
        "tb.bench_uart", parameters={"stall": stall}, testcase="answers", seed=seed
    )


@pytest.mark.parametrize("stall", STALLS)
def test_block_dram(stall: float, seed: int) -> None:
    config, memory = preset("tiny"), BoardMemory(program=192, data=1024)
    build(BlockDram(config=config, memory=memory), name="block_dram").run(
        "tb.bench_uart",
        parameters={
            "stall": stall,
            "width": config.dram_width,
            "program": memory.program,
            "data": memory.data,
        },
        testcase="block_dram",
        seed=seed,
    )


def test_impossible_divisors() -> None:
    with pytest.raises(ValueError, match="at least 4, not 3"):
        UartReceiver(divisor=3)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        UartTransmitter(divisor=0)
