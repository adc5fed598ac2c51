# SPDX-License-Identifier: Apache-2.0
"""Random LOAD and STORE programs on the RTL: DRAM must end as the golden machine's, every byte."""

import random

import pytest

from afternorm.config import Config
from afternorm.device import RtlDevice
from afternorm.golden_device import GoldenDevice
from afternorm.isa import INSTRUCTION_BYTES, Instruction, Opcode, Target
from afternorm.memory_map import EXPONENT_BYTES, Status, float_slot, float_word_bytes
from tb.machine import CONFIGS

DATA, BYTES = 1 << 14, 1 << 17
ROUNDS, EACH = 6, 4
WINDOW = 128
"""Words in the middle of a memory, where the transfers meet."""
LOADED, STORED = 3, 4
"""Semaphores."""


def transfer(rng: random.Random, config: Config, opcode: Opcode) -> Instruction:
    """A random transfer; its arrays lie anywhere in the data, but apart from each other."""
    target = Target(rng.randrange(2))
    blocks = target == Target.BLOCKS
    size = config.block if blocks else float_word_bytes(config)
    depth = config.scratchpad_depth if blocks else config.vector_depth
    count = rng.choice([1, rng.randrange(1, 6), rng.randrange(1, 100)])
    words = count + rng.choice([0, 1, 3])
    half = (BYTES - DATA) // 2

    def start(low: int, size: int) -> int:
        return low + size * rng.randrange((half - config.tiles * words * size) // size)

    return Instruction(
        opcode,
        {
            "target": target,
            "count": count,
            "base": (depth - WINDOW) // 2 + rng.randrange(WINDOW - count + 1),
            "shared": rng.randrange(2),
            "dram": start(DATA, size),
            "dram_tile": words * size,
            "exponents": start(DATA + half, EXPONENT_BYTES) if blocks else 0,
            "exponents_tile": words * EXPONENT_BYTES if blocks else 0,
        },
        drain=rng.random() < 0.2,
    )


def program(rng: random.Random, config: Config) -> bytes:
    """Rounds of loads and stores, each after the end of the one before."""
    # What was never written is not the same in both machines.
    fields = {"count": WINDOW, "base": (config.scratchpad_depth - WINDOW) // 2, "shared": 1}
    instructions = [Instruction(Opcode.LOAD, {**fields, "dram": DATA, "exponents": DATA})]
    for number in range(ROUNDS):
        loads = [transfer(rng, config, Opcode.LOAD) for _ in range(EACH)]
        stores = [transfer(rng, config, Opcode.STORE) for _ in range(EACH)]
        loads[0].waits = (STORED,) if number else ()
        loads[-1].signals = (LOADED,)
        stores[0].waits = (LOADED,)
        stores[-1].signals = (STORED,)
        instructions += loads + stores
    instructions.append(Instruction(Opcode.END))
    return b"".join(i.pack().to_bytes(INSTRUCTION_BYTES, "little") for i in instructions)


@pytest.mark.parametrize(
    "name",
    ["tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS if name != "tiny")],
)
def test_transfers_match_golden(name: str, seed: int) -> None:
    config = CONFIGS[name]
    rng = random.Random(seed)
    image = bytearray(rng.randbytes(BYTES))
    # An exponent's upper bits are its sign: they are lost on the way otherwise.
    for at in range((BYTES + DATA) // 2, BYTES, EXPONENT_BYTES):
        value = rng.randrange(-512, 512)
        image[at : at + EXPONENT_BYTES] = value.to_bytes(EXPONENT_BYTES, "little", signed=True)
    # Nor does a float of exponent 0, which is zero, keep its other bits in the golden machine.
    slot = float_slot(config) // 8
    for at in range(DATA, (BYTES + DATA) // 2, slot):
        bits = int.from_bytes(image[at : at + slot], "little")
        if bits >> config.fraction_bits & 0x3FF == 0:
            image[at : at + slot] = bytes(slot)
    code = program(rng, config)
    image[: len(code)] = code
    with (
        RtlDevice(config, bytes(image), stall=0.2, seed=seed) as rtl,
        GoldenDevice(config, bytes(image)) as golden,
    ):
        assert golden.run(0).status == Status.DONE
        assert rtl.run(0).status == Status.DONE
        expected, got = golden.read(0, BYTES), rtl.read(0, BYTES)
    assert expected != bytes(image)
    wrong = [at for at in range(BYTES) if got[at] != expected[at]]
    assert not wrong, f"{len(wrong)} wrong bytes from {wrong[0]:#x} on"
