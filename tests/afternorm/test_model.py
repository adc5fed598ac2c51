# SPDX-License-Identifier: Apache-2.0
"""Whole models, compiled for the golden machine: against float64, and against themselves."""

import dataclasses

import numpy as np
import pytest

from afternorm.bench.layers import Shape, hollow_model
from afternorm.checkpoints import Arch, Floats, Model, seeded_layer, seeded_model
from afternorm.checkpoints.decoder import Decoder
from afternorm.compiler import builder
from afternorm.compiler.buffers import round_up
from afternorm.compiler.layer_weights import SCHEDULES, Schedule
from afternorm.compiler.model import ModelCompiler
from afternorm.config import Config, preset
from afternorm.errors import AfternormError, CapacityError
from afternorm.golden_device import GoldenDevice
from afternorm.inference import Inference
from afternorm.isa import Opcode
from afternorm.memory_map import float_slot

TINY = preset("tiny").with_(scratchpad_depth=1 << 14)
TEXT = [3, 17, 5, 40, 8, 22, 9, 30, 1, 12, 44, 7, 2, 19]
SEED = 7
DECODERS: list[Arch] = ["llama", "gpt2"]


def inference(
    config: Config, model: Model, schedule: Schedule, *, tokens: int = 24, chunk: int = 1
) -> Inference:
    compiler = ModelCompiler(config, model, schedule, tokens=tokens, chunk=chunk)
    return Inference(compiler, GoldenDevice(config, compiler.image()))


def decoded(engine: Inference, tokens: list[int] = TEXT) -> Floats:
    """Logits after every token, ``[token, vocabulary]``."""
    return np.stack([engine.feed([token]) for token in tokens])


def relative(got: Floats, expected: Floats) -> float:
    return float(np.sqrt(((got - expected) ** 2).sum() / (expected**2).sum()))


@pytest.mark.parametrize("arch", DECODERS)
@pytest.mark.parametrize("schedule", ["deferred", "interleaved", "serial"])
@pytest.mark.parametrize("tiles", [1, 3])
def test_decoding(arch: Arch, schedule: Schedule, tiles: int) -> None:
    model = seeded_model(arch, SEED)
    decoder = Decoder(model, 1)
    expected = np.stack([decoder.step([token])[0] for token in TEXT])
    engine = inference(TINY.with_(tiles=tiles), model, schedule)
    assert relative(decoded(engine), expected) < 0.08
    assert all(done.run.flags == 0 for done in engine.done)


@pytest.mark.parametrize("arch", DECODERS)
def test_prefill_agrees_with_decoding_to_rounding(arch: Arch) -> None:
    model = seeded_model(arch, SEED)
    step_by_step = decoded(inference(TINY, model, "deferred"))
    # A chunk of 8, then a second one that is not full, then single tokens.
    engine = inference(TINY, model, "deferred", chunk=8)
    logits = engine.feed(TEXT[:12])
    assert [(done.position, done.rows) for done in engine.done] == [(0, 8), (8, 4)]
    assert relative(logits, step_by_step[11]) < 0.08
    rest = np.stack([engine.feed([token]) for token in TEXT[12:]])
    assert relative(rest, step_by_step[12:]) < 0.08


@pytest.mark.parametrize("arch", DECODERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_where_things_lie_does_not_matter(arch: Arch, schedule: Schedule) -> None:
    """The same bits, whether all stays in the tiles, weights stream, or caches lie in DRAM."""
    model = seeded_model(arch, SEED)
    results = {}
    smallest = {"llama": (512, 24), "gpt2": (1024, 40)}[arch]
    for depth, tokens in ((1 << 14, 24), (1024, 24), smallest):
        config = TINY.with_(tiles=2, scratchpad_depth=depth)
        engine = inference(config, model, schedule, tokens=tokens, chunk=8)
        compiler = engine.compiler
        logits = [engine.feed(TEXT[:9]), *decoded(engine, TEXT[9:])]
        results[compiler.resident, compiler.cached] = np.stack(logits)
    assert set(results) == {(True, True), (False, True), (False, False)}
    resident = results.pop((True, True))
    for streamed in results.values():
        np.testing.assert_array_equal(streamed, resident)


@pytest.mark.parametrize("arch", [*DECODERS, "bert"])
@pytest.mark.parametrize("schedule", ["deferred", "interleaved", "serial"])
@pytest.mark.parametrize("tiles", [1, 2])
def test_heads_of_whole_words(arch: Arch, schedule: Schedule, tiles: int) -> None:
    """A single token's heads are made at once; those that share keys are multiplied at once."""
    model = seeded_model(arch, SEED)
    kv_heads = 2 if arch == "llama" else 4
    layers = [
        seeded_layer(arch, SEED + n, dim=36, heads=4, kv_heads=kv_heads, hidden=50, head_dim=8)
        for n in range(2)
    ]
    model = dataclasses.replace(model, layers=tuple(layers))
    engine = inference(TINY.with_(tiles=tiles), model, schedule)
    if arch == "bert":
        assert relative(engine.features([5]), model.hidden([5])) < 0.08
        return
    decoder = Decoder(model, 1)
    expected = np.stack([decoder.step([token])[0] for token in TEXT[:10]])
    assert relative(decoded(engine, TEXT[:10]), expected) < 0.08
    assert all(done.run.flags == 0 for done in engine.done)


@pytest.mark.parametrize("arch", DECODERS)
def test_tiles_alike(arch: Arch) -> None:
    """The bits of a single tile, on one copy of what DRAM has, wherever it lies."""
    model = seeded_model(arch, SEED)
    text = TEXT[:9]
    alone = decoded(inference(TINY, model, "deferred"), text)
    for depth in (1 << 14, 1024):
        config = TINY.with_(scratchpad_depth=depth)
        one = ModelCompiler(config, model, tokens=24)
        config = config.with_(tiles=3)
        alike = ModelCompiler(config, model, tokens=24, alike=True)
        assert one.resident == alike.resident == (depth > 1024)
        assert one.step(5).moved == alike.step(5).moved
        engine = Inference(alike, GoldenDevice(config, alike.image()))
        np.testing.assert_array_equal(decoded(engine, text), alone)


@pytest.mark.parametrize(
    "schedule", ["deferred", pytest.param("interleaved", marks=pytest.mark.slow), "serial"]
)
@pytest.mark.parametrize(("arch", "tiles"), [("llama", 1), ("llama", 2), ("gpt2", 2)])
def test_a_batch_gets_the_bits_of_each_alone(arch: Arch, schedule: Schedule, tiles: int) -> None:
    """Three sequences in lockstep: tails come and go, wherever weights and caches lie."""
    model, batch, steps = seeded_model(arch, SEED), 3, 10
    rng = np.random.default_rng(SEED)
    texts = rng.integers(model.vocabulary, size=(batch, steps)).tolist()
    config = TINY.with_(tiles=tiles)
    alone = [decoded(inference(config, model, schedule), text) for text in texts]
    places = set()
    for depth in {"llama": (1 << 14, 1024, 512), "gpt2": (1 << 14, 2048, 1024)}[arch]:
        small = config.with_(scratchpad_depth=depth)
        compiler = ModelCompiler(small, model, schedule, tokens=24, batch=batch)
        places.add((compiler.resident, compiler.cached))
        engine = Inference(compiler, GoldenDevice(small, compiler.image()))
        for position in range(steps):
            logits = engine.feed_batch([text[position] for text in texts])
            for sequence, expected in zip(logits, alone, strict=True):
                np.testing.assert_array_equal(sequence, expected[position])
        assert {done.run.flags for done in engine.done} == {0}
    assert places >= {(True, True), (False, False)}


def test_a_batch_of_several_row_groups() -> None:
    """More sequences than `rows_max`."""
    model, batch = seeded_model("llama", SEED), 9
    config = TINY.with_(rows_max=8, acc_banks=6)
    compiler = ModelCompiler(config, model, "interleaved", tokens=24, batch=batch)
    engine = Inference(compiler, GoldenDevice(config, compiler.image()))
    texts = np.random.default_rng(SEED).integers(model.vocabulary, size=(batch, 3))
    got = np.stack([engine.feed_batch(texts[:, position].tolist()) for position in range(3)])
    for sequence in (0, 7, 8):
        alone = decoded(inference(config, model, "interleaved"), texts[sequence].tolist())
        np.testing.assert_array_equal(got[:, sequence], alone)


def test_a_batch_shares_the_weights() -> None:
    """They come from DRAM once for all sequences, whose own rows and logits are all there is."""
    model = seeded_model("llama", SEED)
    config = TINY.with_(scratchpad_depth=2048)
    one, four = (ModelCompiler(config, model, tokens=24, batch=batch) for batch in (1, 4))
    assert (one.resident, one.cached) == (four.resident, four.cached) == (False, True)
    program = one.step(5)
    floats = round_up(model.dim, config.block) + round_up(model.vocabulary, config.lanes)
    assert four.step(5).moved == program.moved + 3 * floats * float_slot(config) // 8
    assert four.step(5).macs == 4 * program.macs


@pytest.mark.parametrize("arch", DECODERS)
def test_wide_passes_are_cut(arch: Arch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, and probabilities that are divided, of more columns than a vector pass takes."""
    model = seeded_model(arch, SEED)
    whole = inference(TINY, model, "serial", tokens=40)
    text = [*TEXT, *TEXT[:6]]
    expected = decoded(whole, text)
    monkeypatch.setattr(builder, "_COLUMNS", 17)
    cut = inference(TINY, model, "serial", tokens=40)
    np.testing.assert_array_equal(decoded(cut, text), expected)
    first, last = (len(engine.done[-1].program.instructions) for engine in (whole, cut))
    assert first < last


def test_a_text_leaves_nothing_to_the_next() -> None:
    engine = inference(TINY, seeded_model("llama", SEED), "deferred")
    first = decoded(engine)
    engine.restart()
    decoded(engine, TEXT[::-1])
    engine.restart()
    np.testing.assert_array_equal(decoded(engine), first)


@pytest.mark.parametrize("schedule", ["deferred", "interleaved", "serial"])
@pytest.mark.parametrize("tiles", [1, 2])
def test_encoding(schedule: Schedule, tiles: int) -> None:
    model = seeded_model("bert", SEED)
    engine = inference(TINY.with_(tiles=tiles), model, schedule)
    assert relative(engine.features(TEXT), model.hidden(TEXT)) < 0.08
    assert engine.sentence(TEXT) @ model.sentence(TEXT) > 0.995


@pytest.mark.parametrize("schedule", ["deferred", "serial"])
def test_padding_changes_no_bit(schedule: Schedule) -> None:
    """Texts of different lengths, padded to the same rows and masked, as each alone."""
    engine = inference(TINY, seeded_model("bert", SEED), schedule)
    for length in (5, 8, 13):
        alone = engine.features(TEXT[:length])
        np.testing.assert_array_equal(engine.features(TEXT[:length], rows=20), alone)


def test_streamed_weights_move_once() -> None:
    """Every constant crosses the DRAM port once a program, and nothing else but in- and output."""
    model = seeded_model("bert", SEED)
    compiler = ModelCompiler(TINY.with_(scratchpad_depth=1024), model, tokens=8)
    assert not compiler.resident
    regions = {region.name: region.size for region in compiler.regions}
    program = compiler.encode(8)
    moved = program.moved
    assert moved == program.needed
    assert moved <= sum(regions.values())
    assert moved >= 0.9 * regions["weights and caches"]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_only_what_is_multiplied_is_gathered(schedule: Schedule) -> None:
    """A text's last row goes to the classifier, and what an encoder makes leaves the machine.

    All rows of a wide machine's last layer once took deferred programs longer than serial ones.
    """
    config = preset("medium").with_(scratchpad_depth=1 << 15)
    rows = {}
    for arch in DECODERS:
        model = hollow_model("text", Shape(arch, 256, 512, 4, 4), 64)
        program = ModelCompiler(config, model, schedule, tokens=64, chunk=64).step(0, 64)
        rows[arch] = [i["rows"] for i in program.instructions if i.opcode == Opcode.GATHER]
    model = hollow_model("text", Shape("bert", 256, 512, 4, 4), 64)
    program = ModelCompiler(config, model, schedule, tokens=64).encode(64)
    rows["bert"] = [i["rows"] for i in program.instructions if i.opcode == Opcode.GATHER]
    # A layer's input, the heads' results in two parts, the sum; then hidden features in pieces.
    layer = [64, 32, 32, 64, 64]
    assert rows["llama"] == [*layer, 64, 64, 64, 1]
    assert rows["gpt2"] == [*layer, 64, 1]
    assert rows["bert"] == [64, 64, 64, 64, 64]


def test_errors() -> None:
    model = seeded_model("llama", SEED)
    with pytest.raises(CapacityError, match="room for 40 tokens, not 41"):
        ModelCompiler(TINY, model, tokens=41)
    with pytest.raises(CapacityError, match=r"vector memory words.*stays.*streams.*intermediate"):
        ModelCompiler(TINY.with_(vector_depth=32), model, tokens=8)
    with pytest.raises(ValueError, match="schedule must be one of"):
        ModelCompiler(TINY, model, "fast", tokens=8)  # type: ignore[arg-type]
    engine = inference(TINY, model, "deferred", tokens=8)
    with pytest.raises(CapacityError, match="room for 8 tokens, not 14"):
        engine.feed(TEXT)
    assert engine.done == [] and engine.position == 0
    with pytest.raises(ValueError, match="encoder"):
        ModelCompiler(TINY, seeded_model("bert", SEED), tokens=8).step(0)
    with pytest.raises(ValueError, match="decoder"):
        engine.compiler.encode(4)
    with pytest.raises(ValueError, match="batch=0 must be 1 at least"):
        ModelCompiler(TINY, model, tokens=8, batch=0)
    with pytest.raises(ValueError, match="batch=2 decodes token by token: chunk must be 1, not 8"):
        ModelCompiler(TINY, model, tokens=8, chunk=8, batch=2)
    with pytest.raises(ValueError, match="encoder: it has no batch=2"):
        ModelCompiler(TINY, seeded_model("bert", SEED), tokens=8, batch=2)
    with pytest.raises(AfternormError, match="3 tokens for a model compiled for batch=1"):
        engine.feed_batch([1, 2, 3])
    compiler = ModelCompiler(TINY, model, tokens=8, batch=2)
    with pytest.raises(ValueError, match="2 rows from position 0 in chunks of 1"):
        compiler.step(0, 2)
    with pytest.raises(AfternormError, match="compiled for batch=2: feed_batch takes a token"):
        Inference(compiler, GoldenDevice(TINY, compiler.image())).feed([1])
    untied = dataclasses.replace(model, classifier=model.embedding[:20])
    assert inference(TINY, untied, "deferred", tokens=8).feed([1]).shape == (20,)
