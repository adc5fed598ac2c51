# SPDX-License-Identifier: Apache-2.0
"""Benchmarks on the model of the machine's time, and what is common to all of them."""

import importlib.util
import json
import os
import shlex
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest

from afternorm.bench import (
    BenchResult,
    FlashNorm,
    Measurement,
    Subject,
    attention,
    bench_attention,
    bench_decode,
    bench_gemm,
    bench_layer,
    bench_norm,
    bench_prefill,
    bench_scaling,
    bench_step,
    decode,
    flashnorm,
    gemm,
    layers,
    norm,
    prefill,
    scaling,
)
from afternorm.bench.decode import weight_bound
from afternorm.bench.layers import Shape, hollow_model
from afternorm.bench.subject import enlarged
from afternorm.checkpoints import Model, seeded_input, seeded_layer, seeded_model
from afternorm.cli import main, parser
from afternorm.compiler.kernels import compile_attention, compile_gemm, compile_norm_linear
from afternorm.compiler.layer import compile_layer
from afternorm.compiler.layer_weights import SCHEDULES
from afternorm.compiler.model import ModelCompiler
from afternorm.config import Config, preset
from afternorm.cycles import predict
from afternorm.cycles.timing import timing
from afternorm.errors import AfternormError, CapacityError

TINY = preset("tiny")
ROOT = Path(__file__).parents[2]


def on_model(**options: int) -> Subject:
    return Subject("tiny", TINY, "model", **options)


def cycles(result: BenchResult) -> dict[tuple[object, ...], int]:
    return {(*one.labels.values(), one.schedule): one.cycles for one in result.measurements}


# FlashNorm


def test_flashnorm_paper() -> None:
    assert flashnorm(512, 128) == FlashNorm(512, 128, serial=24, interleaved=21, deferred=17)


def test_flashnorm_formulas() -> None:
    for chunks in range(1, 9):
        got = flashnorm(16 * chunks, 16)
        assert got.serial == 2 * chunks + chunks * chunks
        assert got.interleaved == chunks + 1 + chunks * chunks
        assert got.deferred == chunks * chunks + 1


@pytest.mark.parametrize(("n", "m"), [(100, 64), (0, 4), (8, 0)])
def test_flashnorm_bad(n: int, m: int) -> None:
    with pytest.raises(AfternormError, match=f"m={m} must divide the row's n={n}"):
        flashnorm(n, m)


# Measurements


def test_shares() -> None:
    one = Measurement(
        labels={"M": 1},
        schedule="serial",
        cycles=400,
        span=200,
        ideal=100,
        macs=1600,
        multipliers=32,
        lost={"exp": 7},
        instructions=3,
    )
    assert one.useful == 1600 / 32 / 400
    assert one.padded == 100 / 400
    assert one.useful_span == 1600 / 32 / 200
    assert replace(one, span=0).useful_span == 0.0
    result = on_model().result("gemm", "title")
    result.measurements = [one, replace(one, schedule="none", cycles=320)]
    assert result.overhead(one) == 400 / 320 - 1
    assert result.overhead(replace(one, labels={"M": 2})) is None
    assert result.exact
    result.measurements.append(replace(one, differ=1))
    assert not result.exact


def test_enlarged() -> None:
    larger = enlarged(TINY)
    assert larger is not None
    assert larger.scratchpad_depth == 2 * TINY.scratchpad_depth
    assert (
        larger.with_(
            scratchpad_depth=TINY.scratchpad_depth,
            vector_depth=TINY.vector_depth,
            scale_depth=TINY.scale_depth,
            stat_depth=TINY.stat_depth,
        )
        == TINY
    )
    most = TINY
    while (next_one := enlarged(most)) is not None:
        most = next_one
    assert most.scratchpad_depth == 1 << 20
    assert most.scale_depth == 4096


def test_hop_latency_on_rtl() -> None:
    with pytest.raises(AfternormError, match="hop latency of 3"):
        Subject("tiny", TINY, "rtl", hop_latency=3)


def test_what_does_not_fit_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "SQUARES", (512,))
    monkeypatch.setattr(gemm, "OTHERS", ())
    with pytest.raises(CapacityError, match=r"none of the work fits: left out: M=512 N=512 K=512"):
        bench_gemm(Subject("tiny", TINY, "rtl"))
    monkeypatch.setattr(gemm, "SQUARES", (16,))
    monkeypatch.setattr("afternorm.bench.subject.RTL_CYCLES", 127)
    with pytest.raises(CapacityError, match="128 array cycles would take long"):
        bench_gemm(Subject("tiny", TINY, "rtl"))


# Benchmarks


def test_gemm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "SQUARES", (16, 128))
    result = bench_gemm(on_model())
    assert len(result.measurements) == 2 + len(gemm.OTHERS)
    for one in result.measurements:
        M, N, K = (int(size) for size in one.labels.values())
        assert one.ideal == M * ceil(N / TINY.columns) * ceil(K / TINY.block)
        assert one.macs == M * N * K
        assert one.differ is None
        assert one.cycles >= one.span >= one.ideal
        if M % TINY.rows_max == 0:
            assert one.idle_slots == 0
    job = compile_gemm(TINY, 16, 16, 16)
    assert result.measurements[0].cycles == predict(TINY, job.program).cycles
    assert result.measurements[1].useful_span > 0.99
    assert result.panels[0].curves["useful"][0][0] == 16
    assert any("scratchpad_depth" in note for note in result.notes)


def test_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "LENGTHS", (20, 32))
    monkeypatch.setattr(attention, "HEAD_DIMS", (16, 128))
    monkeypatch.setattr(attention, "HEADS", 2)
    result = bench_attention(on_model())
    by = cycles(result)
    # P.V of a head of 128 would take more accumulator banks than there are.
    assert {labels[1] for labels in by} == {32, 16}
    assert any("head=128" in note for note in result.notes)
    for S in (20, 32):
        assert by[S, 32, "yes", "deferred"] < by[S, 32, "no", "deferred"]
    for one in result.measurements:
        if one.schedule == "deferred":
            overhead = result.overhead(one)
            assert overhead is not None
            assert 0 <= overhead < 0.02


def needed(config: Config, S: int, head: int, causal: bool) -> int:
    """Array cycles of a head, query by query: the blocks of keys up to its own one."""
    R, C = config.block, config.columns
    cycles = 0
    for query in range(S):
        keys = min(S, R * ceil((query + 1) / R)) if causal else S
        cycles += ceil(head / R) * ceil(keys / C) + ceil(keys / R) * ceil(head / C)
    return cycles


SQUARE = preset("small").with_(block=16, columns=16, lanes=16, scratchpad_depth=1 << 16)
HEADS = (32, 48, 64, 80, 96, 128)
ATTENTION = [
    (config, S, head, causal)
    for config in (preset("medium").with_(tiles=1, scratchpad_depth=1 << 16), SQUARE)
    for S, heads in ((64, HEADS), (100, HEADS), (256, (64, 96)))
    for head in heads
    for causal in (False, True)
] + [(preset("small").with_(scratchpad_depth=1 << 16), S, 128, False) for S in (64, 256)]


@pytest.mark.parametrize(
    ("config", "S", "head", "causal"),
    ATTENTION,
    ids=lambda value: f"R{value.block}C{value.columns}" if isinstance(value, Config) else None,
)
def test_attention_has_no_idle_slot(config: Config, S: int, head: int, causal: bool) -> None:
    """Eight heads a tile, back to back: a hundredth of the ideal, or what no schedule avoids."""
    job = compile_attention(config, S, head, attention.HEADS, causal)
    ideal, least = int(job.info["ideal"]), attention.HEADS * needed(config, S, head, causal)
    time = predict(config, job.program)
    constant = config.rows + 2 * config.columns + 13
    # The pipelines fill beneath the first head's few queries, in the shortest of all.
    assert time.idle_slots <= 16
    assert time.span <= ideal + constant + 16
    if S % config.block == 0:
        assert ideal == least
        share = 0.01 if S < 256 else 0.003
        assert time.span <= max((1 + share) * least, least + constant + 16)
    else:
        assert least <= ideal <= 1.05 * least


@pytest.mark.slow
def test_attention_waits_for_banks() -> None:
    """As wide as deep, and two heads to an array's width: banks are not drained fast enough."""
    config = preset("large").with_(tiles=1, scratchpad_depth=1 << 15, vector_depth=1 << 15)
    more = config.with_(acc_banks=8)

    def idle(config: Config, head: int) -> float:
        job = compile_attention(config, 128, head, attention.HEADS, True)
        return predict(config, job.program).idle_slots / int(job.info["ideal"])

    assert idle(config, 64) == idle(more, 64) == 0
    assert 0 < idle(more, 32) < 0.01 < idle(config, 32)


def test_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm, "TILES", (1, 2))
    monkeypatch.setattr(norm, "ROWS", (16, 32, 64))
    result = bench_norm(on_model(), tokens=32)
    by = cycles(result)
    assert len(by) == 2 * 3 * 4
    for T in (1, 2):
        for K in (16, 32, 64):
            assert by[T, K, "none"] <= by[T, K, "deferred"] < by[T, K, "interleaved"]
            assert by[T, K, "interleaved"] <= by[T, K, "serial"]
    assert result.tables[0].rows == [(24, 21, 17)]
    assert len(result.panels) == 3
    slow = cycles(bench_norm(on_model(hop_latency=100), tokens=32))
    assert slow[2, 64, "serial"] >= by[2, 64, "serial"] + 100
    assert slow[1, 64, "serial"] == by[1, 64, "serial"]


def test_norm_on_a_thousand_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of which every tile has its block: nothing is padded, and the tree has ten levels."""
    monkeypatch.setattr(norm, "TILES", (64, 1024))
    monkeypatch.setattr(norm, "ROWS", (512, 8192))
    near, far = (bench_norm(on_model(hop_latency=hops), tokens=16) for hops in (0, 20))
    by, slow = cycles(near), cycles(far)
    assert {(T, K) for T, K, _ in by} == {(64, 512), (64, 8192), (1024, 8192)}
    for one in near.measurements:
        assert one.macs == one.ideal * one.multipliers
    for T, K in ((64, 512), (1024, 8192)):
        levels = T.bit_length() - 1
        assert slow[T, K, "serial"] >= by[T, K, "serial"] + 20 * levels
    overhead = by[1024, 8192, "deferred"] / by[1024, 8192, "none"]
    assert overhead < 1.01 < by[1024, 8192, "serial"] / by[1024, 8192, "none"]


def test_zeros_give_the_same_program() -> None:
    """Cycles need no values: what has none takes no memory."""
    for schedule in SCHEDULES:
        hollow, seeded = (
            compile_norm_linear(TINY, "layer", 70, 50, 19, schedule=schedule, seed=seed)
            for seed in (None, 3)
        )
        assert hollow.program == seeded.program
        assert not any(hollow.image.mantissas.strides)


def test_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "seeded", lambda *_: seeded_layer("llama", 0, kv_heads=2))
    result = bench_layer(on_model(), archs=("llama",), tokens=8)
    assert [one.schedule for one in result.measurements] == [
        "deferred",
        "interleaved",
        "serial",
        "none",
    ]
    assert {one.ideal for one in result.measurements if one.schedule != "serial"} == {
        result.measurements[0].ideal
    }
    model = seeded_model("gpt2", 0)
    own = bench_layer(on_model(), source=model, layer=1, tokens=8)
    assert own.measurements[0].labels == {"layer": "gpt2", "dim": model.dim}
    with pytest.raises(AfternormError, match="has 2 layers: there is no layer 2"):
        bench_layer(on_model(), source=model, layer=2)


@pytest.mark.parametrize("arch", ["llama", "bert"])
def test_hollow_weights_give_the_same_program(arch: str) -> None:
    """Cycles need no values: zeros that take no memory compile to the same instructions."""
    layer = seeded_layer("llama" if arch == "llama" else "bert", 1, kv_heads=4, hidden=96)
    shape = Shape(layer.arch, layer.dim, layer.hidden, layer.heads, layer.kv_heads)
    hollow = hollow_model("toy", shape, 16)
    config = TINY.with_(scratchpad_depth=2048)
    programs = []
    for model in (hollow, replace(hollow, layers=(replace(layer, eps=1e-5),))):
        compiler = ModelCompiler(config, model, tokens=16, chunk=16)
        one = compiler.step(0, 16) if compiler.decodes else compiler.encode(16)
        programs.append(one.words)
    assert programs[0] == programs[1]


def test_prefill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layers.PUBLISHED, "toy", Shape("llama", 64, 96, 4, 2))
    small = Subject("tiny", TINY.with_(scratchpad_depth=2048), "model")
    result = bench_prefill(small, ["toy"], tokens=[24])
    assert len(result.measurements) == 4
    beat = TINY.dram_width // 8
    weights = (64 * 64 * 2 + 32 * 64 * 2 + 3 * 64 * 96) // TINY.block * (TINY.block + 2)
    for one in result.measurements:
        labels = {"layer": "toy", "tokens": 24, "T": 1, "chunk": 16, "weights": "streamed"}
        assert one.labels == labels
        assert one.cycles > one.bound >= one.ideal
        assert one.dram_beats * beat >= weights
    with pytest.raises(AfternormError, match="there is no shape 'gpt-9'; there are llama-2-7b"):
        bench_prefill(on_model(), ["gpt-9"])
    with pytest.raises(AfternormError, match="use --on model"):
        bench_prefill(Subject("tiny", TINY, "rtl"), ["toy"])
    with pytest.raises(CapacityError, match=r"none of the work fits: .*T=1025: "):
        bench_prefill(small, ["toy"], tiles=[1025])


def test_prefill_in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes beside each other measure what one after the other measures, in its order."""
    monkeypatch.setitem(layers.PUBLISHED, "toy", Shape("llama", 64, 96, 4, 2))
    monkeypatch.setattr(prefill.os, "cpu_count", lambda: 2)
    small = Subject("tiny", TINY.with_(scratchpad_depth=2048), "model")
    some = bench_prefill(small, ["toy"], tokens=[24], tiles=[1, 1025, 4])
    assert any("left out: layer=toy tokens=24 T=1025" in note for note in some.notes)
    monkeypatch.setattr(prefill.os, "cpu_count", lambda: 1)
    assert bench_prefill(small, ["toy"], tokens=[24], tiles=[1, 4]).measurements == (
        some.measurements
    )
    assert [one.labels["T"] for one in some.measurements] == [1] * 4 + [4] * 4


class Lethal(Subject):
    """Ends the process that receives it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (1,)


def test_a_lost_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefill.os, "cpu_count", lambda: 2)
    with pytest.raises(AfternormError, match="a process was lost; is memory short"):
        bench_prefill(Lethal("tiny", TINY, "model"), ["bert-large"], tiles=[1, 2])


def test_prefill_in_smaller_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no memory has room for the rows of an instruction, half of them are taken."""
    monkeypatch.setitem(layers.PUBLISHED, "toy", Shape("llama", 64, 96, 4, 2))
    small = Subject("tiny", TINY.with_(scratchpad_depth=2048), "model")
    whole = bench_prefill(small, ["toy"], tokens=[32])
    room = ModelCompiler.__init__

    def no_room(self: ModelCompiler, *arguments: object, chunk: int, **options: object) -> None:
        if chunk > 8:
            raise CapacityError("no room")
        room(self, *arguments, chunk=chunk, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ModelCompiler, "__init__", no_room)
    halves = bench_prefill(small, ["toy"], tokens=[32])
    for one, other in zip(whole.measurements, halves.measurements, strict=True):
        assert (one.labels["chunk"], other.labels["chunk"]) == (16, 8)
        assert other.dram_beats > 1.5 * one.dram_beats
        assert other.macs >= one.macs


def test_texts_of_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text by text, the last one being shorter."""
    monkeypatch.setitem(layers.PUBLISHED, "toy", Shape("bert", 64, 96, 4, 4))
    monkeypatch.setattr(prefill, "_TEXT", 16)
    subject = Subject("tiny", TINY.with_(scratchpad_depth=4096), "model")
    result = bench_prefill(subject, ["toy"], tokens=[8, 16, 40])
    assert [one.labels["tokens"] for one in result.measurements] == [8] * 4 + [16] * 4 + [40] * 4
    rest, text, both = (result.measurements[4 * n] for n in range(3))
    assert 2 * text.cycles < both.cycles < 3 * text.cycles
    assert both.macs == 2 * text.macs + rest.macs


def test_a_step_of_a_published_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights stream; what lies in the caches comes on top of them."""
    monkeypatch.setitem(layers.PUBLISHED, "toy", Shape("llama", 64, 96, 4, 2))
    subject = Subject("tiny", TINY.with_(scratchpad_depth=512), "model")
    near, far = (bench_step(subject, "toy", context=n, tiles=[1, 2]) for n in (8, 200))
    assert {(one.labels["T"], one.schedule) for one in near.measurements} == {
        (T, schedule) for T in (1, 2) for schedule in SCHEDULES
    }
    for one, other in zip(near.measurements, far.measurements, strict=True):
        assert one.bound < one.cycles < other.cycles
    batched = bench_step(subject, "toy", context=8, tiles=[1, 2], batches=[1, 5])
    assert batched.measurements[:8] == near.measurements
    for one, other in zip(near.measurements, batched.measurements[8:], strict=True):
        assert other.labels == one.labels | {"batch": 5}
        assert other.macs == 5 * one.macs
        assert other.a_token < one.a_token
    with pytest.raises(AfternormError, match="bert-large is an encoder"):
        bench_step(subject, "bert-large")
    with pytest.raises(AfternormError, match="there is no shape 'gpt-9'"):
        bench_step(subject, "gpt-9")


def test_scaling_of_a_published_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """More tiles than the layer has blocks only add padding."""
    monkeypatch.setitem(layers.PUBLISHED, "toy", Shape("bert", 64, 96, 4, 4))
    result = bench_scaling(on_model(), tokens=8, source="toy", tiles=[1, 8, 64])
    by = {(one.labels["T"], one.schedule): one for one in result.measurements}
    assert by[8, "none"].cycles < by[1, "none"].cycles / 3
    assert by[64, "none"].useful < by[8, "none"].useful / 4
    assert result.tables[0].rows[-1][-1] == timing(TINY.with_(tiles=64)).tree


def test_chunks_between_are_interpolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three chunks stand for all of them, within 1 %."""
    monkeypatch.setitem(layers.PUBLISHED, "toy", Shape("llama", 64, 96, 4, 2))
    subject = Subject("tiny", TINY.with_(scratchpad_depth=4096), "model")
    some = bench_prefill(subject, ["toy"], tokens=[120])
    monkeypatch.setattr(prefill, "_CHUNKS", 100)
    everything = bench_prefill(subject, ["toy"], tokens=[120])
    assert any("interpolated" in note for note in some.notes)
    assert not any("interpolated" in note for note in everything.notes)
    for one, other in zip(some.measurements, everything.measurements, strict=True):
        assert (one.schedule, one.macs) == (other.schedule, other.macs)
        for name in ("cycles", "ideal", "dram_beats", "instructions"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=0.01), name


def test_weight_bound() -> None:
    model = seeded_model("llama", 0)  # dim 36, 3 heads of 10, 1 key head, hidden 50, 45 words
    blocks = 2 * ((30 + 10 + 10) * 5 + 36 * 4 + 2 * 50 * 5 + 36 * 7) + 45 * 5
    assert weight_bound(TINY, model).array == blocks
    assert weight_bound(TINY.with_(tiles=4), model).array == ceil(blocks / 4)
    assert weight_bound(TINY, model).dram == ceil(blocks * 10 / 8)
    # Columns enter the array in fours (rows_max is 16): 3 rows hide behind that, 16 do not, and
    # 17 are two groups.
    fours = 2 * ((8 + 3 + 3) * 5 + 9 * 4 + 2 * 13 * 5 + 9 * 7) + 12 * 5
    assert weight_bound(TINY, model, 3).array == blocks
    assert weight_bound(TINY, model, 16).array == 16 * fours
    assert weight_bound(TINY, model, 17).array == 17 * fours
    assert weight_bound(TINY, model, 16).dram == weight_bound(TINY, model).dram


def test_decode() -> None:
    model = seeded_model("llama", 0)
    result = bench_decode(on_model(), model, positions=[0, 9])
    assert {one.labels["weights"] for one in result.measurements} == {"resident", "streamed"}
    assert len(result.measurements) == 2 * 2 * 4
    for one in result.measurements:
        assert one.cycles > one.bound
    by = cycles(result)
    assert by["streamed", 1, 9, "deferred"] > by["resident", 1, 9, "deferred"]
    assert by["resident", 1, 9, "deferred"] < by["resident", 1, 9, "serial"]
    assert set(result.panels[0].curves) == {"deferred", "interleaved", "serial", "none", "bound"}
    with pytest.raises(AfternormError, match="is an encoder"):
        bench_decode(on_model(), seeded_model("bert", 0))


def test_decode_batch() -> None:
    """Weights come once for all sequences: a token is the cheaper, the more there are."""
    model = seeded_model("llama", 0)
    result = bench_decode(on_model(), model, positions=[9], batches=[1, 4])
    assert [one.labels["batch"] for one in result.measurements] == [1] * 8 + [4] * 8
    streamed = {
        one.batch: one
        for one in result.measurements
        if one.labels["weights"] == "streamed" and one.schedule == "deferred"
    }
    assert streamed[4].macs == 4 * streamed[1].macs
    assert streamed[4].bound == streamed[1].bound < streamed[4].cycles
    assert streamed[4].dram_beats < 1.2 * streamed[1].dram_beats
    assert streamed[4].a_token == streamed[4].cycles / 4 < 0.6 * streamed[1].cycles


def test_decode_beyond_the_context() -> None:
    with pytest.raises(CapacityError, match=r"no position 40: the context of .* 40 tokens"):
        bench_decode(on_model(), seeded_model("llama", 0), positions=[3, 40])


def test_decode_that_fits_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "enlarged", lambda _: None)
    subject = Subject("small", TINY.with_(vector_depth=128), "model")
    with pytest.raises(CapacityError, match="with batch 8 and 10 tokens fits no memories"):
        bench_decode(subject, seeded_model("llama", 0), positions=[9], batches=[8])


NARROW = preset("small").with_(dram_width=64, scratchpad_depth=1 << 14)
"""A 64-bit DRAM port, and room for the caches of stories260K, but not for its weights."""


def stories_shape() -> Model:
    """A model of stories260K's sizes: its programs are the same."""
    layers = [seeded_layer("llama", n, dim=64, heads=8, kv_heads=4, hidden=172) for n in range(5)]
    embedding = np.ones((512, 64))
    return replace(
        seeded_model("llama", 0, context=512),
        layers=tuple(layers),
        embedding=embedding,
        classifier=embedding,
        final_gamma=np.ones(64),
    )


@pytest.mark.parametrize("tiles", [1, 4])
def test_normalization_of_a_small_layer_is_free(tiles: int) -> None:
    """A layer of stories260K, 64 tokens: at most 1 % on no normalization at all."""
    config = preset("medium").with_(tiles=tiles, scratchpad_depth=1 << 15, vector_depth=1 << 14)
    layer = stories_shape().layers[0]
    x = seeded_input(layer, 0, 64)
    none, deferred, serial = (
        predict(config, compile_layer(config, layer, x, schedule).program).cycles
        for schedule in ("none", "deferred", "serial")
    )
    assert deferred <= 1.01 * none
    assert serial > 1.2 * none


@pytest.mark.parametrize(
    ("config", "alike"),
    [
        pytest.param(NARROW, False, id="small"),
        pytest.param(NARROW.with_(columns=16, tiles=4), True, id="four tiles, alike"),
    ],
)
def test_decoding_is_bound_by_its_weights(config: Config, alike: bool) -> None:
    """90 % of what a token's weights take at 8 bytes a cycle; what is missing is accounted for."""
    model = stories_shape()
    compiler = ModelCompiler(config, model, tokens=512, alike=alike)
    assert (compiler.resident, compiler.cached) == (False, True)
    bound = weight_bound(config, model).dram
    shares = []
    for position in (0, 64, 128, 256, 511):
        program = compiler.step(position)
        cycles = predict(config, program.instructions).cycles
        shares.append(bound / cycles)
        fetched = 8 * len(program.instructions)
        assert cycles <= program.moved // 8 + fetched + 500, "the port was idle"
        assert program.moved // 8 <= 1.015 * bound
    assert min(shares[:3]) >= 0.90
    assert min(shares) >= 0.86


def test_tiles_alike() -> None:
    """Tiles that would pad the weights are measured with one copy of them, too."""
    config = TINY.with_(tiles=4, scratchpad_depth=512, dram_width=64)
    result = bench_decode(
        Subject("tiles", config, "model"), seeded_model("llama", 0), positions=[3]
    )
    cycles = {one.labels["weights"]: one.cycles for one in result.measurements}
    assert set(cycles) == {"resident", "streamed", "streamed, alike"}
    assert cycles["streamed, alike"] < cycles["streamed"]


def test_decode_positions() -> None:
    assert decode._positions(16, on_model()) == [0, 1, 2, 4, 8, 15]
    assert decode._positions(1, on_model()) == [0]
    assert decode._positions(512, Subject("tiny", TINY, "rtl")) == [0, 1, 2, 4, 7]


def test_scaling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "TILES", (1, 2, 4))
    monkeypatch.setattr(scaling, "seeded", lambda *_: seeded_layer("bert", 0))
    for hops in (0, 7):
        result = bench_scaling(on_model(hop_latency=hops), tokens=8)
        table = result.tables[0]
        assert [row[0] for row in table.rows] == [1, 2, 4]
        assert all(speedup == 1.0 for speedup in table.rows[0][1:6])
        for row in table.rows:
            tree = timing(TINY.with_(tiles=int(row[0])), hop_latency=hops).tree
            assert row[-1] == tree
        assert isinstance(table.rows[2][1], float)
        assert 1.5 < table.rows[2][1] <= 4


# The documentation


def test_docs() -> None:
    """The page has every benchmark, with commands that can be run and what they printed."""
    spec = importlib.util.spec_from_file_location("bench_docs", ROOT / "scripts" / "bench_docs.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = script.PAGE.read_text(encoding="utf-8")
    names = [parser().parse_args(shlex.split(one)[1:]).bench for one in script.commands(page)]
    assert set(names) == {
        "gemm",
        "attention",
        "norm",
        "layer",
        "decode",
        "scaling",
        "simulation",
    }
    for match, name in zip(script.BLOCK.finditer(page), names, strict=True):
        assert match[2].startswith(f"{name}: "), f"run scripts/bench_docs.py {name}"


# The command line


def test_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(norm, "TILES", (1, 2, 4))
    monkeypatch.setattr(norm, "ROWS", (16, 32, 64))
    arguments = ["bench", "norm", "--preset", "tiny", "--tokens", "16"]
    plots = [tmp_path / "a.svg", tmp_path / "b.svg", tmp_path / "c.png"]
    for plot in plots:
        json_file = plot.with_suffix(".json")
        assert main([*arguments, "--json", str(json_file), "--plot", str(plot)]) == 0
    assert plots[0].read_bytes() == plots[1].read_bytes()
    assert plots[2].read_bytes().startswith(b"\x89PNG")
    numbers = json.loads((tmp_path / "a.json").read_text())
    assert numbers["bench"] == "norm"
    assert numbers["parameters"]["columns"] == TINY.columns
    assert numbers["exact"] is None
    serial = [one for one in numbers["measurements"] if one["schedule"] == "serial"]
    assert len(serial) == 8  # four tiles share no row of 16
    assert all(one["overhead"] > 0 for one in serial)
    assert numbers["tables"][0]["rows"] == [{"serial": 24, "interleaved": 21, "deferred": 17}]
    out = capsys.readouterr().out
    assert f"{serial[0]['cycles']:,}" in out
    # Rows that are normalized group by group wait for a pass, or for its rows of all tiles.
    groups = [one for one in numbers["measurements"] if one["schedule"] == "interleaved"]
    for one in groups:
        who = "gather" if one["labels"]["T"] > 1 else "vector"
        assert one["lost"][who] == one["idle_slots"]
    slots = sum(one["idle_slots"] for one in groups)
    assert slots > 0
    assert f"interleaved: idle slots {slots:,}: gather" in out
    assert "24" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gemm", "--on", "rtl", "--hop-latency", "2"], "hop latency of 2"),
        (["simulation", "--on", "model"], "use --on rtl"),
        (["layer", "--model", "gpt-9"], "there is no shape 'gpt-9'"),
        (["layer", "--tokens", "8", "16"], "2 numbers of tokens: only --model takes several"),
        (["layer", "--model", "bert-large", "--on", "rtl"], "use --on model"),
        (["layer", "--checkpoint", "absent.bin"], "absent.bin"),
        (["decode", "--checkpoint", "absent.bin"], "absent.bin"),
        (["norm", "--tokens", "0"], "0 is less than 1"),
        (["gemm", "--plot", "plot.txt"], "plot.txt must end in .png or .svg"),
        (["gemm", "--preset", "huge"], "unknown preset 'huge'"),
        (["guess"], "invalid choice: 'guess'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line, status 2, and no file."""
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *arguments, "--json", "out.json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
