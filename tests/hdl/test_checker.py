# SPDX-License-Identifier: Apache-2.0
"""The checker finds what the golden machine finds, in random instructions near the limits."""

import json
import random
from pathlib import Path

import pytest

from afternorm.config import Config, preset
from afternorm.isa import BODIES, Instruction, Opcode
from golden.machine import Machine, MachineError
from hdl.scheduler.checker import Checker
from tb.runner import build

CONFIGS = {
    "tiny": preset("tiny"),
    "wide": preset("tiny").with_(columns=16, tiles=3, acc_width=32),
}


def near_limits(config: Config, opcode: Opcode, rng: random.Random) -> Instruction:
    """A random instruction whose addresses and counts are often just legal, or just not."""
    depths = {"scratchpad": config.scratchpad_depth, "vector": config.vector_depth}
    body = {}
    for name, width in BODIES[opcode]:
        if width == 1:
            value = rng.getrandbits(1)
        elif name.startswith(("dram", "exponents")):
            value = rng.getrandbits(width) & -rng.choice([1, 2, 8, 64])
        elif name.endswith("base") and width >= 16:
            value = rng.choice([0, rng.randrange(200), rng.choice([*depths.values()]) - 1])
            value = max(0, value - rng.choice([0, 1, 2, 7, 60]))
        elif name.endswith("_base"):
            value = max(0, rng.choice([0, config.stat_depth, config.scale_depth])
                        - rng.choice([0, 1, 4, 8, 16]))  # fmt: skip
        elif name in ("rows", "cols", "blocks", "count"):
            value = rng.choice([0, 1, 2, 3, 5, 8, 15, 16, 17, rng.getrandbits(width)])
        elif width >= 16:
            value = rng.choice([0, 1, 2, 16, rng.randrange(64), rng.getrandbits(width)])
        else:
            value = rng.choice([0, 1, 2, rng.getrandbits(width)])
        body[name] = value % (1 << width)
    semaphores = [
        tuple(
            rng.choice([rng.randrange(32), rng.randrange(62)] if rng.random() < 0.02 else [3])
            for _ in range(rng.randrange(count + 1))
        )
        for count in (4, 3)
    ]
    return Instruction(opcode, body, *semaphores, rng.choice([None, 1]), bool(rng.getrandbits(1)))


def golden_verdict(machine: Machine, instruction: Instruction) -> int:
    try:
        machine.check(instruction)
    except MachineError as error:
        return int(error.code)
    return 0


@pytest.mark.parametrize("name", CONFIGS)
def test_verdicts(name: str, seed: int, tmp_path: Path) -> None:
    config = CONFIGS[name]
    rng = random.Random(seed)
    machine = Machine(config)
    cases = []
    for opcode in Opcode:
        for _ in range(300):
            instruction = near_limits(config, opcode, rng)
            cases.append((f"{instruction.pack():x}", golden_verdict(machine, instruction)))
    legal = {int(opcode) for opcode in Opcode}
    cases += [(f"{opcode:x}", 1) for opcode in range(16) if opcode not in legal]
    rng.shuffle(cases)
    assert {code for _, code in cases} == {0, 1, 2, 3, 5}
    checker = Checker(config=config)
    file = tmp_path / "cases.json"
    file.write_text(json.dumps(cases))
    build(checker, name="legality").run(
        "tb.bench_checker", parameters={"cases": str(file), "latency": checker.latency}, seed=seed
    )
