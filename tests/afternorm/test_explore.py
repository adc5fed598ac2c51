# SPDX-License-Identifier: Apache-2.0
"""Design spaces: what files may say, what scores are, and that no finished score is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import afternorm.explore.cluster
from afternorm.accuracy import decoder_accuracy, decoder_reference
from afternorm.accuracy_run import read_texts
from afternorm.checkpoints import load_model
from afternorm.cli import main
from afternorm.compiler.kernels import compile_gemm, compile_norm_linear
from afternorm.compiler.model import ModelCompiler
from afternorm.config import preset
from afternorm.cycles import predict
from afternorm.explore import Results, load_space, run_local
from afternorm.explore.cluster import evaluate_there
from afternorm.explore.pareto import pareto_front
from afternorm.explore.tasks import AreaTask, CyclesTask, Outcome, Task, evaluate
from afternorm.explore.workloads import Gemm
from afternorm.models import ADDER
from afternorm.report import report
from afternorm.simulation import run_golden
from afternorm.units import make_unit
from hdl.verilog import emit_rtlil

EXAMPLE = Path(__file__).parents[2] / "examples" / "space.toml"
TINY = preset("tiny")
GEMM = '[[workloads]]\nkind = "gemm"\nM = 8\nN = 8\nK = 16\n'
NORM = '[[workloads]]\nkind = "norm"\nM = 16\nN = 16\nK = 32\nname = "n"\ncount = 3\n'
SMALL = f'presets = "tiny"\n{GEMM}'
SWEEP = """
presets = ["tiny"]
schedules = ["serial", "deferred"]
[sizes]
columns = [4, 8, 12]
fraction_bits = [9, 15]
"""
LONG = f"""
presets = ["tiny"]
scores = ["accuracy"]
[sizes]
fraction_bits = [{", ".join(map(str, range(4, 25)))}]
vector_depth = 4096
[[workloads]]
kind = "layer"
arch = "gpt2"
tokens = 16
"""
"""Twenty-one points, each of which takes a moment."""


def write(folder: Path, text: str, name: str = "space.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def run(path: Path, *arguments: str) -> dict[str, Any]:
    """What `explore` writes as JSON."""
    numbers = path.with_name("numbers.json")
    assert main(["explore", str(path), "--json", str(numbers), "--workers=1", *arguments]) == 0
    found: dict[str, Any] = json.loads(numbers.read_text())
    return found


def gemm(config: Any = TINY, **changes: int) -> CyclesTask:
    """A task that takes no time."""
    workload = Gemm(name="g", **({"M": 8, "N": 8, "K": 16, "seed": 0} | changes))
    return CyclesTask(
        config=config,
        code=Task.sources(),
        workload=workload,
        schedule="deferred",
        dram_latency=32,
        hop_latency=0,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("presets = [", "is not TOML"),
        ("", "workloads is empty: add one under [[workloads]]"),
        ("workloads = 3", "workloads must be tables, each headed [[workloads]]"),
        ('[workloads]\nkind = "gemm"', "workloads must be tables, each headed [[workloads]]"),
        ("preset = 'tiny'\n" + GEMM, "unknown key 'preset'; known are presets, schedules, "),
        ("presets = ['huge']\n" + GEMM, "presets has 'huge'; there are nano, tiny, small"),
        ("presets = []\n" + GEMM, "presets is empty: name a value, or leave the key out"),
        ("presets = [1]\n" + GEMM, "presets has 1; there are nano, tiny, small"),
        ("schedules = ['eager']\n" + GEMM, "schedules has 'eager'; there are serial, "),
        ("scores = ['power']\n" + GEMM, "scores has 'power'; there are cycles, area, accuracy"),
        ("scores = ['accuracy']", "takes [[workloads]] or a table [accuracy]"),
        ("pareto = ['lut']\n" + GEMM, "pareto has 'lut'; there are cycles, macs, memory_bits, e"),
        (GEMM + "[area]\ntarget = 'ecp5'", "scores has no 'area': add it, or remove the table"),
        ("sizes = 3\n" + GEMM, "[sizes] must be a table, not 3"),
        (GEMM + "[sizes]\nrows = [8]", "[sizes]: rows is no size of an accelerator; there are b"),
        (GEMM + "[sizes]\ntiles = []", "[sizes]: tiles is empty"),
        (GEMM + "[sizes]\ntiles = ['1']", "tiles must be an integer or a list of them; it has"),
        (GEMM + "[sizes]\ntiles = [true]", "tiles must be an integer or a list of them; it has T"),
        (GEMM + "[cycles]\nlatency = 3", "[cycles]: unknown key 'latency'; known are dram_laten"),
        (GEMM + "[cycles]\ndram_latency = 1", "dram_latency must be an integer of 2 or more, no"),
        (GEMM + GEMM, "number 2: there is another 'gemm 8x8x16'; give one of them another name"),
        (GEMM + "split_keys = true", "number 1: unknown key 'split_keys'; known are kind, M, N"),
        ("[[workloads]]\nM = 3", "[[workloads]] number 1: kind is missing"),
        ("[[workloads]]\nkind = 'gem'", "kind has 'gem'; there are gemm, norm, attention, la"),
        ("[[workloads]]\nkind = 'gemm'\nM = 0", "M must be an integer of 1 or more, not 0"),
        ("[[workloads]]\nkind = 'gemm'\nM = 1.0", "M must be an integer of 1 or more, not 1.0"),
        ("[[workloads]]\nkind = 'gemm'\nM = 1\nN = 1", "K is missing: it has no default"),
        (
            "[[workloads]]\nkind = 'attention'\nS = 8\nhead_dim = 8\ncausal = 1",
            "causal must be true or false, not 1",
        ),
        ("[[workloads]]\nkind = 'layer'\narch = 't5'", "arch has 't5'; there are llama, bert"),
        (
            "[[workloads]]\nkind = 'layer'\narch = 'bert'\ntokens = 8\ndim = 10",
            "dim 10 is no multiple of heads=4",
        ),
        (
            "[[workloads]]\nkind = 'layer'\narch = 'llama'\ntokens = 8\nkv_heads = 3",
            "kv_heads 3 does not go with heads=4 of llama",
        ),
        (
            "[[workloads]]\nkind = 'layer'\narch = 'llama'\ntokens = 8\ndim = 12",
            "dim 12 leaves 3 to a head",
        ),
        (
            "[[workloads]]\nkind = 'decode'\ncheckpoint = 'adder'\nposition = 16",
            "position is 16; ",
        ),
        (
            "[[workloads]]\nkind = 'decode'\ncheckpoint = 'none.bin'\nposition = 1",
            "cannot read none.bin",
        ),
        (
            "[[workloads]]\nkind = 'layer'\ncheckpoint = 'adder'\ntokens = 8\nlayer = 2",
            "layer is 2; ",
        ),
        (GEMM + "[accuracy]\ncheckpoint = 'adder'\ntext = 'no.txt'", "cannot read "),
    ],
)
def test_wrong_files(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, text)
    assert main(["explore", str(path)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("afternorm: error: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == [path]


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["explore", "--help"])
    assert stop.value.code == 0
    assert "example:\n  afternorm explore" in capsys.readouterr().out


def test_wrong_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, SMALL)
    for arguments, message in (
        (["--workers", "0"], "--workers: 0 is less than 1"),
        (["--workers", "1", "--scheduler", "x"], "not allowed with"),
        (["--plot", "x.pdf"], "must end in .png or .svg"),
        (["-o", str(path)], "is no folder; name one with -o"),
    ):
        assert main(["explore", str(path), *arguments]) == 2
        assert message in capsys.readouterr().err
    assert main(["explore", str(tmp_path / "none.toml")]) == 2
    assert "cannot read" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


def test_defaults(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, GEMM))
    assert [c.config for c in space.candidates] == [preset("small")]
    assert space.schedules == ("deferred",)
    assert space.scores == ("cycles", "accuracy")
    assert space.objectives == ("cycles", "macs", "error")
    assert space.name == "space"


def test_union_of_sizes(tmp_path: Path) -> None:
    tables = "[[sizes]]\ncolumns = [4, 8, 4]\n[[sizes]]\ncolumns = 8\ntiles = [1, 2]\n"
    space = load_space(write(tmp_path, "presets = ['tiny', 'small']\n" + GEMM + tables))
    tiny, small = ([c for c in space.candidates if c.preset == name] for name in ("tiny", "small"))
    assert [(c.sizes["columns"], c.sizes["tiles"]) for c in tiny] == [(4, 1), (8, 1), (8, 2)]
    assert [c.config for c in tiny] == [
        TINY,
        TINY.with_(columns=8),
        TINY.with_(columns=8, tiles=2),
    ]
    assert small[0].config is None
    assert small[0].reason == "lanes=8 does not divide columns=4"
    assert space.swept == ("columns", "tiles")


def test_example() -> None:
    space = load_space(EXAMPLE)
    assert all(candidate.config is not None for candidate in space.candidates)
    assert len(space.candidates) == 16
    assert [w.kind for w in space.workloads] == ["gemm", "norm", "attention", "layer", "decode"]


def test_front(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.integers(4, size=(60, 3)).tolist()

    def dominates(a: list[int], b: list[int]) -> bool:
        return a != b and all(x <= y for x, y in zip(a, b, strict=True))

    expected = [not any(dominates(other, point) for other in points) for point in points]
    assert pareto_front(points) == expected
    assert any(expected)
    assert not all(expected)
    assert pareto_front([]) == []
    assert pareto_front([(1, 1), (1, 1)]) == [True, True]


def test_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    latencies = "[cycles]\ndram_latency = 50\n"
    path = write(tmp_path, SWEEP + GEMM + NORM + latencies)
    plot = tmp_path / "space.svg"
    numbers = run(path, "--plot", str(plot))
    text = capsys.readouterr().out
    assert "space: 12 points, " in text
    assert "4 impossible; 24 scores evaluated, 0 known" in text
    assert plot.read_bytes().startswith(b"<?xml")
    assert numbers["objectives"] == ["cycles", "macs", "error"]
    done = [point for point in numbers["points"] if point["status"] == "done"]
    assert len(done) == 8
    for point in done:
        sizes = point["parameters"]
        config = TINY.with_(columns=sizes["columns"], fraction_bits=sizes["fraction_bits"])
        assert sizes == config.to_dict()
        jobs = {
            "gemm 8x8x16": compile_gemm(config, 8, 8, 16),
            "n": compile_norm_linear(config, "rms", 32, 16, 16, schedule=point["schedule"]),
        }
        cycles, errors = [], []
        for name, job in jobs.items():
            scores = point["workloads"][name]
            cycles.append(predict(config, job.program, dram_latency=50).cycles)
            expected = job.info["reference"]["output"]
            got = job.results(run_golden(job))["output"]
            errors.append(np.linalg.norm(got - expected) / np.linalg.norm(expected))
            assert scores["cycles"] == cycles[-1]
            assert scores["error"] == pytest.approx(errors[-1])
            assert 0 < errors[-1] < 0.1
        scores = point["scores"]
        assert scores["cycles"] == cycles[0] + 3 * cycles[1]
        assert scores["error"] == pytest.approx(max(errors))
        assert scores["macs"] == config.macs
        macs = 8 * 8 * 16 + 3 * 16 * 16 * 32
        assert scores["used"] == pytest.approx(macs / (scores["cycles"] * config.macs))
    front = pareto_front([[p["scores"][o] for o in numbers["objectives"]] for p in done])
    assert [point["front"] for point in done] == front
    impossible = [point for point in numbers["points"] if point["status"] == "impossible"]
    assert [point["parameters"]["columns"] for point in impossible] == [12] * 4
    assert all("columns=12 neither divides block=8" in point["reason"] for point in impossible)
    assert text.count("*") == sum(front)


def test_nothing_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the same again, nor what a larger space shares with a smaller one."""
    path = write(tmp_path, SWEEP + GEMM)
    first = run(path)
    folder = tmp_path / "space-results"
    # The schedule makes no difference to a product.
    assert "8 scores evaluated, 0 known" in capsys.readouterr().out
    times = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert len(times) == 8
    assert run(path) == first
    assert "0 scores evaluated, 8 known" in capsys.readouterr().out
    write(tmp_path, SWEEP.replace("9, 15", "9, 15, 17") + GEMM + NORM)
    run(path)
    assert "28 scores evaluated, 8 known" in capsys.readouterr().out
    assert times.items() <= {f: f.stat().st_mtime_ns for f in folder.iterdir()}.items()
    broken, *_ = folder.iterdir()
    broken.write_text("{")
    run(path)
    assert "1 scores evaluated, 35 known" in capsys.readouterr().out
    assert json.loads(broken.read_text())["outcome"]["status"] == "done"


def test_capacity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What does not fit is a result, too."""
    sizes = "[sizes]\nscratchpad_depth = [64, 8192]\n"
    text = 'presets = "tiny"\n[[workloads]]\nkind = "gemm"\nM = 64\nN = 64\nK = 64\n' + sizes
    path = write(tmp_path, text)
    small, large = run(path)["points"]
    assert large["status"] == "done"
    assert small["status"] == "impossible"
    assert small["reason"].startswith("gemm 64x64x64: the work needs ")
    capsys.readouterr()
    assert run(path)["points"] == [small, large]
    text = capsys.readouterr().out
    assert "1 impossible; 0 scores evaluated, 4 known" in text
    assert "the work needs" in text


def test_decode_and_layers(tmp_path: Path) -> None:
    text = """
presets = ["tiny"]
[sizes]
acc_width = 32
[[workloads]]
kind = "decode"
checkpoint = "adder"
position = 3
[[workloads]]
kind = "layer"
checkpoint = "adder"
layer = 1
tokens = 6
[[workloads]]
kind = "layer"
arch = "bert"
tokens = 6
dim = 16
heads = 2
hidden = 16
[[workloads]]
kind = "attention"
S = 8
head_dim = 8
heads = 2
causal = true
"""
    point, *others = run(write(tmp_path, text))["points"]
    assert others == []
    scores = point["workloads"]
    assert len(scores) == 4
    assert all(0 < score["error"] < 0.2 for score in scores.values())
    config = TINY.with_(acc_width=32)
    program = ModelCompiler(config, load_model(ADDER), tokens=4).step(3)
    decode = scores["adder decode at 3"]
    assert decode["cycles"] == predict(config, program.instructions).cycles
    assert decode["macs"] == program.macs


def test_loss(tmp_path: Path) -> None:
    (tmp_path / "sums.txt").write_text("27+48=75\n1+1=2\n")
    text = "presets = 'tiny'\nscores = 'accuracy'\n[accuracy]\ncheckpoint = 'adder'\n"
    path = write(tmp_path, text + "text = 'sums.txt'\nlength = 6\n")
    (point,) = run(path)["points"]
    model = load_model(ADDER)
    texts = read_texts(tmp_path / "sums.txt", model, length=6)
    reference = decoder_reference(model, texts)
    config = TINY.with_(acc_width=16)
    expected = decoder_accuracy(config, model, "deferred", texts, reference)
    assert point["scores"]["loss"] == pytest.approx(expected.excess)
    assert "error" not in point["scores"]


def test_area_of_a_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERNORM_CACHE", str(tmp_path / "cache"))
    text = "presets = 'tiny'\nscores = 'area'\n[area]\nunit = 'pe'\ntarget = 'ecp5'\n"
    path = write(tmp_path, text)
    (point,) = run(path)["points"]
    design = emit_rtlil(make_unit("pe", TINY), name="pe")
    resources = report(design, top="pe", target="ecp5").root.resources
    assert resources["dsp"] == 1
    assert {kind: point["scores"][kind] for kind in resources} == resources
    assert len(list((tmp_path / "cache").glob("cells-*.json"))) == 1


@pytest.mark.slow
def test_area_of_an_accelerator(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL.replace("[[w", "scores = ['cycles', 'area']\n[[w"))
    (point,) = run(path)["points"]
    scores = point["scores"]
    assert scores["dsp"] >= TINY.macs
    assert scores["lut"] > scores["dsp"]
    assert point["front"]


def test_keys() -> None:
    task = gemm()
    same = replace(task, schedule="serial", workload=replace(task.workload, name="h", count=9))
    assert same.key == task.key
    others = [
        gemm(M=9),
        gemm(TINY.with_(tiles=2)),
        replace(task, dram_latency=33),
        replace(task, code="other"),
        AreaTask(config=TINY, code=task.code, target="ecp5", unit="pe"),
    ]
    assert len({task.key, *(other.key for other in others)}) == 6


def test_other_sources() -> None:
    """A cluster's worker does not mix its results with those of another version."""
    outcome = evaluate_there(replace(gemm(), code="other"))
    assert outcome.status == "fatal"
    assert "has another afternorm" in outcome.reason
    assert evaluate_there(gemm()) == evaluate(gemm())


@dataclass(frozen=True, kw_only=True)
class LethalTask(Task):
    """Ends its worker."""

    def scores(self) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}


@dataclass(frozen=True, kw_only=True)
class BrokenTask(Task):
    """Fails as a defect of the program would."""

    def scores(self) -> dict[str, float]:
        raise ZeroDivisionError("two\nlines")


def test_failures_are_not_kept(tmp_path: Path) -> None:
    task = BrokenTask(config=TINY, code=Task.sources())
    outcome = evaluate(task)
    assert outcome == Outcome("failed", {}, "ZeroDivisionError: two lines")
    results = Results(tmp_path / "results")
    results.put(task, outcome)
    assert results.get(task) is None
    assert list(tmp_path.iterdir()) == []


def test_lethal_task() -> None:
    """What ends its worker every time fails; all others are done."""
    good = [gemm(M=M) for M in range(1, 6)]
    lethal = LethalTask(config=TINY, code=Task.sources())
    found = dict(run_local([*good[:2], lethal, *good[2:]], workers=2))
    assert found.pop(lethal).status == "failed"
    assert found == {task: evaluate(task) for task in good}
    assert all(outcome.status == "done" for outcome in found.values())


def children(process: int) -> list[int]:
    """The workers that a process has started."""
    workers = []
    for name in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        if b"spawn_main" in Path(f"/proc/{name}/cmdline").read_bytes():
            workers.append(int(name))
    return workers


def start(path: Path, folder: Path) -> tuple["subprocess.Popen[str]", list[int]]:
    """A sweep, and its workers, when two of its scores are finished."""
    command = [sys.executable, "-m", "afternorm.cli", "explore", str(path), "--workers=2"]
    process = subprocess.Popen(
        [*command, "-o", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(path.parent)},
        # A test run in the background may ignore interrupts, and its children with it.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.json"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process, children(process.pid)


def test_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, folder = write(tmp_path, LONG), tmp_path / "results"
    process, workers = start(path, folder)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output == ""
    finished = sorted(folder.glob("*.json"))
    assert sorted(folder.iterdir()) == finished
    assert 2 <= len(finished) < 21
    assert errors == (
        f"afternorm: interrupted; {len(finished)} of 21 scores are in {folder}, and the same "
        "command goes on from there\n"
    )
    assert len(workers) == 2
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert sorted(tmp_path.iterdir()) == [folder, path]
    times = {file: file.stat().st_mtime_ns for file in finished}
    numbers = run(path, "-o", str(folder))
    assert f"{21 - len(times)} scores evaluated, {len(times)} known" in capsys.readouterr().out
    assert [point["status"] for point in numbers["points"]] == ["done"] * 21
    assert times.items() <= {f: f.stat().st_mtime_ns for f in folder.iterdir()}.items()


def test_lost_worker(tmp_path: Path) -> None:
    path, folder = write(tmp_path, LONG), tmp_path / "results"
    process, workers = start(path, folder)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert "21 points" in output
    assert "21 scores evaluated, 0 known" in output
    assert "failed" not in output


def test_lost_parent(tmp_path: Path) -> None:
    """Workers end when there is nobody left to work for."""
    path, folder = write(tmp_path, LONG), tmp_path / "results"
    process, workers = start(path, folder)
    process.kill()
    process.communicate()
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert sorted(tmp_path.iterdir()) == [folder, path]


def test_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    distributed = pytest.importorskip("distributed")
    path = write(tmp_path, SWEEP + GEMM)
    local = run(path, "-o", str(tmp_path / "local"))
    capsys.readouterr()
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        arguments = ["-o", str(tmp_path / "there"), "--scheduler", cluster.scheduler_address]
        numbers = tmp_path / "there.json"
        assert main(["explore", str(path), *arguments, "--json", str(numbers)]) == 0
    assert "8 scores evaluated, 0 known" in capsys.readouterr().out
    assert json.loads(numbers.read_text()) == local
    names = [{file.name for file in (tmp_path / name).iterdir()} for name in ("local", "there")]
    assert names[0] == names[1]


@pytest.mark.slow
def test_cluster_lost_worker(tmp_path: Path) -> None:
    """What a lost worker has not handed over is computed again."""
    distributed = pytest.importorskip("distributed")
    path, folder = write(tmp_path, LONG), tmp_path / "results"
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        command = [sys.executable, "-m", "afternorm.cli", "explore", str(path), "-o", str(folder)]
        process = subprocess.Popen(
            [*command, "--scheduler", cluster.scheduler_address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while len(list(folder.glob("*.json"))) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert "21 scores evaluated, 0 known" in output
    assert "failed" not in output


def test_no_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(afternorm.explore.cluster, "_TIMEOUT", 0.3)
    path = write(tmp_path, SMALL)
    assert main(["explore", str(path), "--scheduler", "tcp://127.0.0.1:1"]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("afternorm: error: --scheduler: there is no Dask scheduler at tcp://")
    assert errors.count("\n") == 1
