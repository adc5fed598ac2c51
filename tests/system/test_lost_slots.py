# SPDX-License-Identifier: Apache-2.0
"""Who makes the array wait: RTL and model name the engine, and account for every idle slot."""

from collections.abc import Iterator, Sequence

import pytest

from afternorm.compiler.accesses import accesses
from afternorm.cycles import predict
from afternorm.cycles.timing import timing
from afternorm.device import RtlDevice
from afternorm.isa import INSTRUCTION_BYTES, Engine, Instruction, Opcode, Scale, Source, Target
from afternorm.memory_map import Status
from afternorm.results import Run, lost_to
from tb.machine import CONFIGS

WAITED, OTHER = 5, 7
"""Semaphores."""
END = Instruction(Opcode.END)
MOVED = {"target": Target.BLOCKS, "base": 64, "dram": 0x10000, "exponents": 0x40000, "count": 150}
SLOW = {
    "exp": Instruction(Opcode.EXP, {"rows": 16, "cols": 16, "bank": 1, "p_row": 2, "p_block": 1}),
    "vector": Instruction(
        Opcode.VECTOR,
        {"rows": 16, "cols": 16, "source": Source.ACC, "bank": 1, "to_vector": 1, "y_row": 8},
    ),
    "reduce": Instruction(Opcode.REDUCE, {"rows": 16, "mode": Scale.LAYER, "tree": 1}),
    "scan": Instruction(
        Opcode.SCAN, {"rows": 12, "blocks": 10, "a_base": 99, "a_row": 10, "a_block": 1}
    ),
    "gather": Instruction(
        Opcode.GATHER,
        {"rows": 16, "blocks": 8, "src_row": 8, "src_block": 1, "dst_base": 512}
        | {"dst_row": 16, "dst_block": 1, "dst_tile": 8},
    ),
    "load": Instruction(Opcode.LOAD, MOVED),
    "store": Instruction(Opcode.STORE, MOVED),
}
"""An instruction of each engine that outlasts a product."""
ENGINE_OF = {name: "reduce" if name == "scan" else name for name in SLOW}


def product(*waits: int, rows: int = 16, blocks: int = 2, cols: int = 8) -> Instruction:
    fields = {"rows": rows, "blocks": blocks, "cols": cols, "a_row": 8, "a_block": 1}
    fields |= {"b_base": 6144, "b_col": 8, "b_block": 1}
    return Instruction(Opcode.MATMUL, fields, waits)


def signalling(name: str, semaphore: int = WAITED, *, early: bool = False) -> Instruction:
    slow = SLOW[name]
    signals, at = ((), semaphore) if early else ((semaphore,), None)
    return Instruction(slow.opcode, dict(slow.body), (), signals, at)


def sync(engine: Engine, *waits: int) -> Instruction:
    return Instruction(Opcode.SYNC, {"engine": engine}, waits)


@pytest.fixture(scope="module", params=["tiny", "T2-B16-F9"])
def device(request: pytest.FixtureRequest) -> Iterator[RtlDevice]:
    with RtlDevice(CONFIGS[request.param]) as device:
        yield device


def lost(device: RtlDevice, program: Sequence[Instruction]) -> dict[str, int]:
    """Who makes the array wait in a program, as RTL and model agree on; and nobody else."""
    for instruction in program:
        if instruction.opcode not in (Opcode.SYNC, Opcode.END):
            accesses(device.config, instruction)  # legal
    run = ran(device, program)
    prediction = predict(device.config, program)
    assert prediction.lost == run.lost
    assert prediction.idle_slots == run.idle_slots == sum(run.lost.values())
    return {who: slots for who, slots in run.lost.items() if slots}


def ran(device: RtlDevice, program: Sequence[Instruction]) -> Run:
    words = (i.pack().to_bytes(INSTRUCTION_BYTES, "little") for i in program)
    device.write(0, b"".join(words))
    run = device.run(0)
    assert run.status == Status.DONE, f"{run.error.name} at {run.error_index}"
    return run


@pytest.mark.parametrize("name", SLOW)
def test_each_engine(device: RtlDevice, name: str) -> None:
    """The second product waits: all that is lost, the loading of its weights included."""
    program = [product(), signalling(name), product(WAITED), END]
    assert list(lost(device, program)) == [ENGINE_OF[name]]


def test_an_early_signal(device: RtlDevice) -> None:
    program = [product(), signalling("reduce", early=True), product(WAITED), END]
    assert list(lost(device, program)) == ["reduce"]


def test_one_after_the_other(device: RtlDevice) -> None:
    """Of two engines, the one that is waited for first takes what both could have."""
    pair = [signalling("load"), signalling("exp", OTHER)]
    # No token may be left over: a semaphore's count outlives the program.
    first = lost(device, [product(), pair[0], SLOW["exp"], product(WAITED), END])
    second = lost(device, [product(), SLOW["load"], pair[1], product(OTHER), END])
    assert (list(first), list(second)) == (["load"], ["exp"])
    load, exp = first["load"], second["exp"]
    assert load > exp
    both = lost(device, [product(), *pair, product(OTHER, WAITED), END])
    assert both == {"exp": exp, "load": load - exp}
    assert lost(device, [product(), *pair, product(WAITED, OTHER), END]) == {"load": load}
    by_sync = lost(device, [product(), *pair, sync(Engine.MATMUL, OTHER), product(WAITED), END])
    assert by_sync.pop("matmul") == 2  # the SYNC itself
    assert list(by_sync) == ["exp", "load"] and by_sync["exp"] == exp


def test_a_chain(device: RtlDevice) -> None:
    """Lost to whom the array waits for, not to whom that one waits for."""
    exp = SLOW["exp"]
    follows = Instruction(exp.opcode, dict(exp.body), (WAITED,), (OTHER,))
    program = [product(), signalling("load"), follows, product(OTHER), END]
    assert list(lost(device, program)) == ["exp"]


def test_no_instruction(device: RtlDevice) -> None:
    """Those of other engines take their time to be fetched and checked."""
    program = [product(), *[sync(Engine.EXP)] * 20, product(), END]
    assert list(lost(device, program)) == ["fetch"]


def test_a_full_queue(device: RtlDevice) -> None:
    """It holds up those behind it, so its engine is who the array waits for."""
    loads = [SLOW["load"]] * (device.config.queue_depth + 8)
    found = lost(device, [product(), *loads, product(), END])
    assert list(found) == ["load", "fetch"]
    assert found["load"] > 2 * found["fetch"]


def test_the_array_itself(device: RtlDevice) -> None:
    """Fewer rows than columns; and a SYNC that waits for the end of a product."""
    columns = device.config.columns
    few = lost(device, [product(rows=1, blocks=1, cols=4 * columns), END])
    assert few == {"matmul": 3 * (columns - 1)}
    assert list(lost(device, [product(), sync(Engine.MATMUL), product(), END])) == ["matmul"]


def test_a_narrow_product(device: RtlDevice) -> None:
    """It begins sooner after its grant than one of all columns; its own slots are its own."""
    narrow = product(WAITED, rows=1, blocks=4, cols=1)
    found = lost(device, [product(), signalling("load"), narrow, END])
    assert list(found) == ["matmul", "load"]
    assert found["matmul"] == 3 * (timing(device.config).tile_period - 1)


def test_what_is_not_lost(device: RtlDevice) -> None:
    """Before the first row and behind the last nothing is."""
    for program in (
        [signalling("load"), product(WAITED), END],
        [product(), SLOW["load"], END],
        [product(), signalling("load"), sync(Engine.MATMUL, WAITED), END],
        [SLOW["load"], END],
        [product(), product(), product(), END],
    ):
        assert lost(device, program) == {}


def test_programs_one_after_the_other(device: RtlDevice) -> None:
    """Counters begin anew, and who signalled in an earlier program does not matter."""
    for name in ("load", "exp", "load"):
        program = [product(), signalling(name), product(WAITED), END]
        assert list(lost(device, program)) == [name]


def test_in_words() -> None:
    assert lost_to({"matmul": 0, "exp": 1234, "load": 23}) == "idle slots 1,257: exp 1,234, load 23"
    assert lost_to({"matmul": 0}) == "idle slots 0"
