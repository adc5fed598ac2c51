# SPDX-License-Identifier: Apache-2.0
"""How many bits an accelerator's memories hold."""

from afternorm.config import Config
from afternorm.isa import INSTRUCTION_BITS
from golden.number import EXPONENT_BITS


def memory_bits(config: Config) -> dict[str, int]:
    """Bits of every kind of memory, over all tiles."""
    c = config
    pair = 2 * c.float_width
    return {
        "scratchpad": c.tiles * c.scratchpad_depth * (8 * c.block + EXPONENT_BITS),
        "accumulators": c.tiles * c.acc_banks * c.rows_max * c.acc_width * c.float_width,
        "vector": c.tiles * c.vector_depth * c.lanes * c.float_width,
        "scales": c.tiles * c.scale_depth * pair,
        "statistics": c.tiles * c.stat_depth * pair,
        "fetch": c.fetch_depth * INSTRUCTION_BITS,
    }
