# SPDX-License-Identifier: Apache-2.0
"""The planner: whatever an operation reads is there when it does."""

import random
from itertools import pairwise

import pytest

from afternorm.compiler.accesses import Memory
from afternorm.compiler.buffers import Buffer, Home
from afternorm.compiler.planner import Buffers, Operation, Plan, streamed_plan
from afternorm.config import preset
from afternorm.errors import CapacityError
from afternorm.isa import Opcode

CONFIG = preset("tiny").with_(scratchpad_depth=256)
DEPTH = CONFIG.scratchpad_depth


def scan(address: int) -> Operation:
    return Operation(Opcode.SCAN, {"a_base": address})


def gather(source: int, target: int) -> Operation:
    return Operation(Opcode.GATHER, {"src_base": source, "dst_base": target})


def constant(buffers: Buffers, size: int) -> Buffer:
    buffer = buffers.add(Memory.SCRATCHPAD, size)
    buffer.home = Home(64 * buffer.start, 0, shared=True)
    return buffer


def check(buffers: Buffers, operations: list[Operation], plan: Plan) -> list[int]:
    """Follow what lies where; the sizes of the LOADs."""
    names = {buffer.home.dram: buffer for buffer in buffers if buffer.home}
    there: list[Buffer | None] = [None] * DEPTH
    for buffer in buffers:
        if buffer.base is not None:
            there[buffer.base : buffer.base + buffer.size] = [buffer] * buffer.size
    loads, originals = [], iter(operations)
    for operation in plan.operations:
        if operation.opcode == Opcode.LOAD:
            base, buffer = operation.fields["base"], names[operation.fields["dram"]]
            assert operation.fields["count"] == buffer.size and base + buffer.size <= DEPTH
            there[base : base + buffer.size] = [buffer] * buffer.size
            loads.append(buffer.size)
            continue
        original = next(originals)
        for name in original.fields:
            buffer = buffers.at(original.fields[name])
            base = operation.fields[name] - (original.fields[name] - buffer.start)
            if name == "dst_base":
                there[base : base + buffer.size] = [buffer] * buffer.size
            assert all(word is buffer for word in there[base : base + buffer.size])
            assert len(there) == DEPTH
    assert next(originals, None) is None
    return loads


def test_random_programs(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(200):
        buffers = Buffers()
        constants = [constant(buffers, rng.randint(1, 40)) for _ in range(rng.randint(1, 12))]
        stays = [
            buffers.add(Memory.SCRATCHPAD, rng.randint(1, 15), high=high) for high in (False, True)
        ]
        stays[0].base, stays[1].base = 0, DEPTH - stays[1].size
        results: list[Buffer] = []
        operations = []
        for _ in range(40):
            if not results or rng.random() < 0.3:
                high = rng.random() < 0.3
                results.append(buffers.add(Memory.SCRATCHPAD, rng.randint(1, 12), high=high))
                source = rng.choice([*constants, *stays])
                operations.append(gather(source.start, results[-1].start))
            else:
                chosen = rng.choice([*constants, *results[-3:], *stays])
                operations.append(scan(chosen.start + rng.randrange(chosen.size)))
        check(buffers, operations, streamed_plan(CONFIG, buffers, operations))


def test_a_constant_is_loaded_once_while_there_is_room() -> None:
    buffers = Buffers()
    constants = [constant(buffers, 50) for _ in range(5)]
    operations = [scan(buffer.start) for buffer in constants * 3]
    assert check(buffers, operations, streamed_plan(CONFIG, buffers, operations)) == [50] * 5


def test_loads_go_ahead_of_their_use() -> None:
    """As soon as what they overwrite is no longer needed: here, half a ring ahead."""
    buffers = Buffers()
    constants = [constant(buffers, 64) for _ in range(12)]
    operations = [scan(buffer.start) for buffer in constants]
    plan = streamed_plan(CONFIG, buffers, operations)
    check(buffers, operations, plan)
    loaded = used = 0
    for operation in plan.operations:
        if operation.opcode == Opcode.LOAD:
            loaded += 1
        else:
            assert loaded >= min(12, used + 4)
            used += 1


@pytest.mark.parametrize("queue_depth", [2, 3])
def test_short_queues(queue_depth: int) -> None:
    buffers = Buffers()
    constants = [constant(buffers, 64) for _ in range(12)]
    operations = [scan(buffer.start) for buffer in constants]
    plan = streamed_plan(CONFIG.with_(queue_depth=queue_depth), buffers, operations)
    assert check(buffers, operations, plan) == [64] * 12


def test_results_that_live_one_after_the_other_share_a_place() -> None:
    buffers = Buffers()
    chain = [buffers.add(Memory.SCRATCHPAD, 100) for _ in range(20)]
    operations = [gather(constant(buffers, 8).start, chain[0].start)]
    operations += [gather(one.start, other.start) for one, other in pairwise(chain)]
    plan = streamed_plan(CONFIG, buffers, operations)
    check(buffers, operations, plan)
    assert plan.used[Memory.SCRATCHPAD] <= DEPTH


@pytest.mark.parametrize("stay", [0, 30])
@pytest.mark.parametrize("weights", [1, 12])
def test_operands_lie_in_banks_of_their_own(stay: int, weights: int) -> None:
    """What is read as A, and what is read as B: results, caches and weights."""
    buffers = Buffers()
    x, keys = (buffers.add(Memory.SCRATCHPAD, stay, high=high) for high in (False, True))
    if stay:
        x.base, keys.base = 0, DEPTH - stay
    streamed = [x, *(buffers.add(Memory.SCRATCHPAD, 30) for _ in range(6))]
    stationary = [keys, *(constant(buffers, 40) for _ in range(weights))]
    stationary += [buffers.add(Memory.SCRATCHPAD, 10, high=True) for _ in range(2)]
    products = [
        Operation(Opcode.MATMUL, {"a_base": a.start, "b_base": b.start})
        for a in streamed
        for b in stationary
        if a.size and b.size
    ]
    bank = DEPTH // CONFIG.scratchpad_banks
    fields = [one.fields for one in streamed_plan(CONFIG, buffers, products).operations]
    last = max(each["a_base"] + 29 for each in fields if "a_base" in each)
    assert last // bank < min(each["b_base"] for each in fields if "b_base" in each) // bank


def test_what_does_not_fit() -> None:
    buffers = Buffers()
    large = buffers.add(Memory.SCRATCHPAD, DEPTH + 1)
    with pytest.raises(CapacityError, match=r"more than the 256 scratchpad blocks.*257 for interm"):
        streamed_plan(CONFIG, buffers, [scan(large.start)])
    one, two = constant(buffers, 200), constant(buffers, 100)
    with pytest.raises(CapacityError, match="scratchpad blocks"):
        streamed_plan(CONFIG, buffers, [gather(one.start, two.start)])
