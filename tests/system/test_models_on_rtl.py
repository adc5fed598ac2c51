# SPDX-License-Identifier: Apache-2.0
"""Whole models on the RTL, with DRAM that stalls: every output `==` the golden machine's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from afternorm.checkpoints import ARCHS, Arch, Model, load_model, seeded_layer, seeded_model
from afternorm.compiler.layer_weights import Schedule
from afternorm.compiler.model import ModelCompiler
from afternorm.config import Config, preset
from afternorm.device import RtlDevice
from afternorm.golden_device import GoldenDevice
from afternorm.inference import Inference
from afternorm.models import ADDER
from tb.machine import CONFIGS

TINY = CONFIGS["tiny"]
TEXT = [3, 17, 5, 40, 8, 22, 9, 30, 1, 12, 44, 7, 2, 19]
MACHINES = [
    pytest.param(CONFIGS["tiny"], id="tiny"),
    pytest.param(CONFIGS["T2-B16-F9"], id="T2-B16-F9"),
    pytest.param(CONFIGS["T3-B8-F23"], id="T3-B8-F23", marks=pytest.mark.slow),
]


def check(compiler: ModelCompiler, seed: int, prefill: int, steps: int) -> None:
    """Run a text on both machines; compare every output and every program's flags."""
    config, image = compiler.config, compiler.image()
    with RtlDevice(config, image, stall=0.2, seed=seed) as device:
        rtl = Inference(compiler, device)
        golden = Inference(compiler, GoldenDevice(config, image))
        if compiler.decodes:
            feeds = [TEXT[:prefill], *([token] for token in TEXT[prefill : prefill + steps])]
            outputs = [(rtl.feed(tokens), golden.feed(tokens)) for tokens in feeds]
        else:
            texts = (TEXT[:prefill], TEXT[: prefill + steps])
            outputs = [(rtl.features(text), golden.features(text)) for text in texts]
    for got, expected in outputs:
        np.testing.assert_array_equal(got, expected)
    for mine, other in zip(rtl.done, golden.done, strict=True):
        assert mine.run.flags == other.run.flags
        assert mine.run.cycles > 0


@pytest.mark.parametrize("schedule", ["deferred", "interleaved", "serial"])
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("config", MACHINES)
def test_seeded_models(config: Config, arch: Arch, schedule: Schedule, seed: int) -> None:
    model = seeded_model(arch, seed)
    compiler = ModelCompiler(config, model, schedule, tokens=24, chunk=8)
    check(compiler, seed, prefill=9, steps=4)


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
@pytest.mark.parametrize("cached", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_what_does_not_fit_streams(arch: Arch, cached: bool, seed: int) -> None:
    """A classifier, or caches, larger than the scratchpad."""
    model = seeded_model(arch, seed, context=1500, vocabulary=2500)
    most = {"llama": 1500, "gpt2": 500}[arch]
    compiler = ModelCompiler(TINY, model, tokens=24 if cached else most, chunk=8)
    assert (compiler.resident, compiler.cached) == (False, cached)
    check(compiler, seed, prefill=9, steps=4)


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_heads_of_whole_words(arch: Arch, seed: int) -> None:
    """Heads of two words of lanes each: a token's are made at once."""
    kv_heads = 2 if arch == "llama" else 4
    layers = [
        seeded_layer(arch, seed + n, dim=36, heads=4, kv_heads=kv_heads, hidden=50, head_dim=8)
        for n in range(2)
    ]
    model = replace(seeded_model(arch, seed), layers=tuple(layers))
    compiler = ModelCompiler(TINY, model, tokens=24, chunk=8)
    check(compiler, seed, prefill=9, steps=4)


def test_tiles_alike(seed: int) -> None:
    """Two tiles that do the same on one copy of weights and caches, which DRAM keeps."""
    model = seeded_model("llama", seed, context=3000)
    config = CONFIGS["T2-B16-F9"]
    compiler = ModelCompiler(config, model, tokens=3000, chunk=16, alike=True)
    assert not compiler.cached
    check(compiler, seed, prefill=9, steps=4)


@pytest.mark.parametrize("cached", [True, False])
def test_batch(cached: bool, seed: int) -> None:
    """Three sequences in lockstep, over the end of a block of values."""
    model, batch, tokens = seeded_model("llama", seed, context=600), 3, 24 if cached else 600
    compiler = ModelCompiler(TINY, model, tokens=tokens, batch=batch)
    assert compiler.cached == cached
    config, image = compiler.config, compiler.image()
    texts = np.random.default_rng(seed).integers(model.vocabulary, size=(10, batch)).tolist()
    with RtlDevice(config, image, stall=0.2, seed=seed) as device:
        rtl = Inference(compiler, device)
        golden = Inference(compiler, GoldenDevice(config, image))
        for tokens_of_all in texts:
            got = rtl.feed_batch(tokens_of_all)
            np.testing.assert_array_equal(got, golden.feed_batch(tokens_of_all))
    assert got.shape == (batch, model.vocabulary)
    for mine, other in zip(rtl.done, golden.done, strict=True):
        assert mine.run.flags == other.run.flags


def test_adder(seed: int) -> None:
    model = load_model(ADDER)
    compiler = ModelCompiler(TINY, model, tokens=10, chunk=8)
    with RtlDevice(TINY, compiler.image(), seed=seed) as device:
        engine = Inference(compiler, device)
        for text, answer in (("27+48=", "75"), ("99+99=", "198"), ("5+7=", "12")):
            engine.restart()
            assert continued(engine, model, text) == text + answer


def continued(engine: Inference, model: Model, text: str) -> str:
    """A text, continued greedily to its end."""
    ids = model.encode(text)
    logits = engine.feed(ids)
    while (token := int(logits.argmax())) not in model.eos:
        ids.append(token)
        logits = engine.feed([token])
    return model.decode(ids)


@pytest.mark.slow
def test_stories260k_on_medium(stories: Model, seed: int) -> None:
    """64 greedy tokens: every logit exact, and the cycles of the token at position 2."""
    config, prompt = preset("medium"), stories.encode("Once upon a time")
    compiler = ModelCompiler(config, stories, tokens=len(prompt) + 64)
    assert compiler.resident and compiler.cached
    image = compiler.image()
    with RtlDevice(config, image, seed=seed) as device:
        rtl = Inference(compiler, device)
        golden = Inference(compiler, GoldenDevice(config, image))
        ids = list(prompt)
        for position in range(len(prompt) + 63):
            logits = rtl.feed([ids[position]])
            np.testing.assert_array_equal(logits, golden.feed([ids[position]]))
            if position + 1 == len(ids):
                ids.append(int(logits.argmax()))
    print(f"position 2: {rtl.done[2].run.cycles} cycles")
    assert rtl.done[2].run.cycles <= 15_000
    assert stories.decode(ids).startswith(
        "Once upon a time, there was a little girl named Lily. She loved to play outside"
    )


@pytest.mark.slow
def test_minilm_on_medium(minilm: Path, seed: int) -> None:
    """A sentence through all six layers."""
    config, model = preset("medium"), load_model(minilm)
    text = model.encode("A small boat crossed the quiet lake at dawn.")
    assert len(text) <= 16
    compiler = ModelCompiler(config, model, tokens=len(text))
    image = compiler.image()
    with RtlDevice(config, image, seed=seed) as device:
        rtl = Inference(compiler, device)
        got = rtl.features(text)
    np.testing.assert_array_equal(
        got, Inference(compiler, GoldenDevice(config, image)).features(text)
    )
    print(f"{len(text)} tokens: {rtl.done[0].run.cycles} cycles")
    mean = got.mean(axis=0)
    assert mean / np.linalg.norm(mean) @ model.sentence(text) >= 0.9985
