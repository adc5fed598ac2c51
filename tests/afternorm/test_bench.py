# SPDX-License-Identifier: Apache-2.0
"""Benchmarks on the model of the machine's time, and what is common to all of them."""

import importlib.util
import json
import shlex
from dataclasses import replace
from math import ceil
from pathlib import Path

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
    bench_scaling,
    decode,
    flashnorm,
    gemm,
    layers,
    norm,
    scaling,
)
from afternorm.bench.decode import weight_bound
from afternorm.bench.layers import Shape, hollow_model
from afternorm.bench.subject import enlarged
from afternorm.checkpoints import seeded_layer, seeded_model
from afternorm.cli import main, parser
from afternorm.compiler.kernels import compile_gemm
from afternorm.compiler.model import ModelCompiler
from afternorm.config import preset
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
        idle_slots=7,
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
    assert len(result.panels) == 2
    slow = cycles(bench_norm(on_model(hop_latency=100), tokens=32))
    assert slow[2, 64, "serial"] >= by[2, 64, "serial"] + 100
    assert slow[1, 64, "serial"] == by[1, 64, "serial"]


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


def test_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layers.PUBLISHED, "toy", Shape("llama", 64, 96, 4, 2))
    small = Subject("tiny", TINY.with_(scratchpad_depth=2048), "model")
    result = bench_layer(small, source="toy", tokens=24)
    assert len(result.measurements) == 4
    beat = TINY.dram_width // 8
    weights = (64 * 64 * 2 + 32 * 64 * 2 + 3 * 64 * 96) // TINY.block * (TINY.block + 2)
    for one in result.measurements:
        assert one.labels == {"layer": "toy", "weights": "streamed"}
        assert one.cycles > one.bound >= one.ideal
        assert one.dram_beats * beat >= weights
    with pytest.raises(AfternormError, match="there is no shape 'gpt-9'; there are llama-2-7b"):
        bench_layer(on_model(), source="gpt-9")
    with pytest.raises(AfternormError, match="use --on model"):
        bench_layer(Subject("tiny", TINY, "rtl"), source="toy")


def test_weight_bound() -> None:
    model = seeded_model("llama", 0)  # dim 36, 3 heads of 10, 1 key head, hidden 50, 45 words
    blocks = 2 * ((30 + 10 + 10) * 5 + 36 * 4 + 2 * 50 * 5 + 36 * 7) + 45 * 5
    assert weight_bound(TINY, model).array == blocks
    assert weight_bound(TINY.with_(tiles=4), model).array == ceil(blocks / 4)
    assert weight_bound(TINY, model).dram == ceil(blocks * 10 / 8)


def test_decode() -> None:
    model = seeded_model("llama", 0)
    result = bench_decode(on_model(), model, positions=[0, 9])
    assert {one.labels["weights"] for one in result.measurements} == {"resident", "streamed"}
    assert len(result.measurements) == 2 * 2 * 4
    for one in result.measurements:
        assert one.cycles > one.bound
    by = cycles(result)
    assert by["streamed", 9, "deferred"] > by["resident", 9, "deferred"]
    assert by["resident", 9, "deferred"] < by["resident", 9, "serial"]
    assert set(result.panels[0].curves) == {"deferred", "interleaved", "serial", "none", "bound"}
    with pytest.raises(AfternormError, match="is an encoder"):
        bench_decode(on_model(), seeded_model("bert", 0))


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
    assert len(serial) == 9
    assert all(one["overhead"] > 0 for one in serial)
    assert numbers["tables"][0]["rows"] == [{"serial": 24, "interleaved": 21, "deferred": 17}]
    out = capsys.readouterr().out
    assert f"{serial[0]['cycles']:,}" in out
    assert "24" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gemm", "--on", "rtl", "--hop-latency", "2"], "hop latency of 2"),
        (["simulation", "--on", "model"], "use --on rtl"),
        (["layer", "--model", "gpt-9"], "there is no shape 'gpt-9'"),
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
