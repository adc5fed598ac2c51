# SPDX-License-Identifier: Apache-2.0
"""The latencies of the machine's pipelines, in cycles: the one place where the model has them.

Each is derived from the configuration as the component of the RTL that it names derives its own
`latency`; a test holds the two against each other.
"""

from dataclasses import dataclass

from afternorm.config import Config
from afternorm.isa import Scale
from afternorm.legality import rules

SCRATCHPAD = 3
"""From an accepted scratchpad read to its data."""
ACCUMULATOR = 2
"""From an accumulator read to its data; a read of the vector or scale memory, too."""
STATISTICS = 2
FLOAT_ADD = 5
FLOAT_MULTIPLY = 4
FUNCTION = 16
FIFO = 2
"""From a write into a buffered queue to the offer of the word."""
EXP_SETUP = 3
EXP_LANE = 5
EXP_TABLE = 1
EXP_SIGNIFICAND = 9
PROCESSING_ELEMENT = 3
TILER_PERIOD = 4
TAP_COMBINE = 3
TAP_DELAY = SCRATCHPAD + 1
"""From a block's request to the statistics tap."""
ENTER_TO_GRANT = 1
"""From an instruction's way out of its queue to the first cycle in which it may be granted."""
LEAVE_TO_OFFER = 1
"""From an instruction's way out of the head to its offer to its engine."""
LEAVE_TO_ENTER = 1
"""From there to the first cycle in which the next one may come to the head."""
SEMAPHORE = 2
"""From a signal to the first grant that it allows."""
IN_FLIGHT = 8
"""Instructions of an engine that are granted and not done."""
RUN, BURST = 32, 128
"""The most words of a run of a transfer, and the most beats of a burst of long words."""
BURSTS_AHEAD = 16
"""Bursts of reads that are asked for ahead of the one that comes; of writes, not yet written."""
BURSTS_UNSENT = 4
"""Bursts of a STORE that are requested and not begun."""


def log2_ceil(n: int) -> int:
    """The least k with ``2**k >= n``."""
    return (n - 1).bit_length()


def int_to_float(fraction_bits: int, width: int) -> int:
    """Of the conversion of integers of `width` bits."""
    return 4 + (width - fraction_bits - 2 > 8)


def quantizer(block: int, lanes: int) -> int:
    """From the last elements of a block to the block."""
    return 1 + (log2_ceil(lanes) + 1) + (block // lanes - 1) + 3


@dataclass(frozen=True)
class Timing:
    """Latencies of one configuration.

    Attributes
    ----------
    tree : from the tiles' floats to their sum.
    dot_control : from the request of a row of A to its control at the accumulators.
    product_done : from there on to the write of the last column, which is `done`.
    product_write : from there on to the write of the first column.
    tile_period : least distance of weight tiles that add to the same accumulators.
    tap : from a block at the statistics tap to the first read that sees it.
    tap_period : least distance of two blocks of one row at the tap.
    exp_done : from the last read of scores to `done`.
    vector_write : from a chunk's last slot to its write to the vector memory.
    vector_block : from there on to the write of its block to the scratchpad.
    scales : from a row's sums to its scales, by mode.
    checks : cycles in which the checker walks an instruction's extents, by opcode.
    """

    tree: int
    dot_control: int
    product_done: int
    product_write: int
    tile_period: int
    tap: int
    tap_period: int
    exp_done: int
    vector_write: int
    vector_block: int
    scales: dict[int, int]
    checks: dict[int, int]


def timing(config: Config, *, hop_latency: int = 0) -> Timing:
    """The latencies of `config`, with `hop_latency` cycles more for a level of the tree."""
    c, f = config, config.fraction_bits
    lanes = min(c.columns, c.block)
    dot = int_to_float(f, 1 + (c.block << 14).bit_length())
    read_to_write = ACCUMULATOR + FLOAT_ADD
    tree = log2_ceil(c.tiles) * (FLOAT_ADD + hop_latency)
    block_bits = log2_ceil(c.block)
    choice, divide, root = 1, f + 5, f + 2
    norm = 2 * FLOAT_MULTIPLY + 2 * FLOAT_ADD + root + divide + 1
    lane = 2 * (FLOAT_MULTIPLY + FLOAT_ADD) + FUNCTION
    exp_block = ACCUMULATOR + (c.columns > lanes) + EXP_LANE + EXP_TABLE
    tap_period = STATISTICS + FLOAT_ADD + 1
    return Timing(
        tree=tree,
        dot_control=SCRATCHPAD + c.block - 1 + PROCESSING_ELEMENT + dot - 3,
        product_done=1 + read_to_write + c.columns - 1,
        product_write=1 + read_to_write,
        tile_period=max(read_to_write + 1, tap_period),
        tap=1
        + block_bits
        + TAP_COMBINE
        + max(int_to_float(f, width + block_bits) for width in (9, 16))
        + FLOAT_ADD
        + 1,
        tap_period=tap_period,
        exp_done=exp_block + quantizer(c.block, lanes) + FIFO + 1,
        vector_write=SCRATCHPAD + 1 + int_to_float(f, 8) + 1 + tree + lane + 1,
        vector_block=quantizer(c.block, c.lanes) + FIFO,
        scales={
            Scale.SOFTMAX: choice + divide + 1,
            Scale.RMS: choice + norm,
            Scale.LAYER: choice + norm + FLOAT_MULTIPLY,
            Scale.SUM: choice + 1,
        },
        checks={
            opcode: sum(len(extent.terms) for extent in rule.extents)
            for opcode, rule in rules(c).items()
        },
    )
