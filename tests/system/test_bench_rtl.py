# SPDX-License-Identifier: Apache-2.0
"""Benchmarks on the RTL: exact, and what the model of its time says of the same work."""

import json
from pathlib import Path

import pytest

from afternorm.bench import (
    BenchResult,
    Subject,
    attention,
    bench_attention,
    bench_decode,
    bench_gemm,
    bench_layer,
    bench_norm,
    bench_scaling,
    bench_simulation,
    gemm,
    norm,
    scaling,
    subject,
)
from afternorm.bench.layers import seeded
from afternorm.bench.scaling import RTL_TILES, RTL_TOKENS, tree_cycles
from afternorm.checkpoints import seeded_model
from afternorm.cli import main
from afternorm.config import preset
from afternorm.simulation import Comparison
from tb.machine import CONFIGS

TINY = preset("tiny")


def check_model(rtl: BenchResult, model: BenchResult) -> None:
    """The same work, exact, within 1 % or 16 cycles of the model."""
    assert rtl.exact
    assert len(rtl.measurements) == len(model.measurements)
    for one, other in zip(rtl.measurements, model.measurements, strict=True):
        assert (one.labels, one.schedule) == (other.labels, other.schedule)
        assert one.differ == 0
        assert (one.ideal, one.macs, one.instructions) == (
            other.ideal,
            other.macs,
            other.instructions,
        )
        assert abs(one.cycles - other.cycles) <= max(16, 0.01 * one.cycles), one.labels


def both(seed: int) -> tuple[Subject, Subject]:
    return Subject("tiny", TINY, "rtl", seed=seed), Subject("tiny", TINY, "model", seed=seed)


def test_kernels(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """The suites themselves, of work that takes a second."""
    monkeypatch.setattr(gemm, "SQUARES", (32,))
    monkeypatch.setattr(gemm, "OTHERS", ((1, 32, 32), (20, 30, 50)))
    monkeypatch.setattr(attention, "LENGTHS", (20,))
    monkeypatch.setattr(attention, "HEAD_DIMS", ())
    monkeypatch.setattr(attention, "HEADS", 2)
    monkeypatch.setattr(norm, "TILES", (1,))
    for name in ("ROWS", "RTL_ROWS"):
        monkeypatch.setattr(norm, name, (40,))
    rtl, model = both(seed)
    check_model(bench_gemm(rtl), bench_gemm(model))
    check_model(bench_attention(rtl), bench_attention(model))
    check_model(bench_norm(rtl, tokens=16), bench_norm(model, tokens=16))


@pytest.mark.slow
def test_layer_and_decode(seed: int) -> None:
    rtl, model = both(seed)
    llama = seeded_model("llama", seed % 1000)
    layers = [bench_layer(one, source=llama, tokens=9) for one in (rtl, model)]
    check_model(*layers)
    steps = [bench_decode(one, llama, positions=[0, 1], batches=[1, 3]) for one in (rtl, model)]
    resident = [one for one in steps[1].measurements if one.labels["weights"] == "resident"]
    place = steps[0].measurements[0].labels["weights"]
    steps[1].measurements = [m for m in steps[1].measurements if m.labels["weights"] == place]
    assert resident
    check_model(*steps)


def test_tree(seed: int) -> None:
    """What the tree adds to a row's scale is what the model says, on two tiles."""
    config = CONFIGS["T2-B16-F9"]
    rtl, model = (tree_cycles(Subject("T2", config, on, seed=seed), 2) for on in ("rtl", "model"))
    assert rtl == model > 0


def test_a_difference_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gemm, "SQUARES", (16,))
    monkeypatch.setattr(gemm, "OTHERS", ())
    path = tmp_path / "gemm.json"
    arguments = ["bench", "gemm", "--preset", "tiny", "--on", "rtl", "--json", str(path)]
    assert main(arguments) == 0
    assert json.loads(path.read_text())["exact"] is True
    monkeypatch.setattr(subject, "compare", lambda *_: Comparison(1000, 3, "word 7"))
    assert main(arguments) == 1
    assert json.loads(path.read_text())["exact"] is False
    assert "differs from the golden machine" in capsys.readouterr().err


@pytest.mark.slow
def test_scaling(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """A layer on 1 to 8 tiles, exact; the tree's latency is the model's to the cycle."""
    rtl, model = both(seed)
    layer = seeded(rtl, "bert")
    monkeypatch.setattr(scaling, "seeded", lambda *_: layer)
    on_rtl, on_model = (bench_scaling(one, tokens=RTL_TOKENS) for one in (rtl, model))
    on_model.measurements = [m for m in on_model.measurements if m.labels["T"] in RTL_TILES]
    assert {m.labels["T"] for m in on_rtl.measurements} == set(RTL_TILES)
    for one, other in zip(on_rtl.measurements, on_model.measurements, strict=True):
        assert (one.labels, one.schedule, one.differ) == (other.labels, other.schedule, 0)
        assert abs(one.cycles - other.cycles) <= max(16, 0.01 * one.cycles), one.labels
    trees = {tiles: tree_cycles(rtl, tiles) for tiles in RTL_TILES}
    assert trees == {tiles: tree_cycles(model, tiles) for tiles in RTL_TILES}
    assert 0 == trees[1] < trees[2] < trees[4] < trees[8]


def simulated(name: str, threads: int = 1) -> float:
    """What cocotb reaches of the bare loop's speed; both count the same cycles."""
    result = bench_simulation(Subject(name, preset(name), "rtl"), threads=threads)
    rows = {row[0]: row for row in result.tables[0].rows}
    cocotb, loop = rows["cocotb"], rows["C++ loop"]
    assert cocotb[1] == loop[1]
    assert isinstance(cocotb[1], int)
    assert cocotb[1] > 50_000
    assert loop[4] == 1.0
    return float(cocotb[4])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "small"])
def test_simulation_speed(name: str) -> None:
    """Cocotb costs a fifth at most."""
    shares = []
    for _ in range(3):  # other work on the machine only ever takes from it
        shares.append(simulated(name))
        if shares[-1] >= 0.8:
            break
    assert 0.8 <= shares[-1] < 1.5, shares


@pytest.mark.slow
def test_simulation_on_threads() -> None:
    simulated("tiny", threads=2)
