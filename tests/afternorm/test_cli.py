# SPDX-License-Identifier: Apache-2.0
"""The command line: what it prints, writes and refuses."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import afternorm.layer_simulation
from afternorm.cli import main
from afternorm.config import PRESETS, preset
from afternorm.results import EngineCycles, LayerResult, ScheduleResult

COMMANDS = ("presets", "generate", "simulate", "run", "accuracy", "explore", "report")

RUN = ScheduleResult(
    schedule="deferred",
    instructions=120,
    cycles=12345,
    ideal=10000,
    lost={"exp": 5, "load": 2, "fetch": 0},
    words=4096,
    mismatches=0,
    error=0.0151,
    flags=[],
    engines={"matmul": EngineCycles(busy=10240, waiting=3, starved=2, stalled=1)},
    seconds=1.5,
)
RESULT = LayerResult(
    layer="llama layer, seed 0",
    parameters=preset("tiny").to_dict(),
    tokens=8,
    seed=0,
    simulator="verilator 5.48.0",
    build_seconds=31.0,
    schedules=[replace(RUN, schedule="serial", cycles=24690), RUN],
    waves=[],
)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a wrong command line gets."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("afternorm: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"example:\n  afternorm {command}" in text
    assert "--json FILE" in text


def test_module() -> None:
    command = [sys.executable, "-m", "afternorm.cli", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "afternorm 0.1.0\n"
    assert result.stderr == ""


def test_presets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "presets.json"
    assert main(["presets", "--json", str(path)]) == 0
    text = capsys.readouterr().out
    numbers = json.loads(path.read_text())
    assert list(numbers) == list(PRESETS)
    for name, config in PRESETS.items():
        assert numbers[name]["parameters"] == config.to_dict()
        row = next(line for line in text.splitlines() if line.strip().startswith(name))
        assert str(config.macs) in row.split()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["presets", "--jsn", "x"], "unrecognized arguments: --jsn x"),
        (["generate", "--preset", "huge"], "unknown preset 'huge'"),
        (["generate", "--preset", "tiny", "--config", "x.toml"], "not allowed with"),
        (["generate", "--config", "none.toml"], "cannot read none.toml"),
        (["report", "--preset", "tiny", "--target", "asic"], "invalid choice: 'asic'"),
        (["report", "--preset", "tiny", "--unit", "alu"], "unknown unit 'alu'; there are "),
        (["simulate", "--arch", "t5"], "invalid choice: 't5'"),
        (["simulate", "--schedule", "eager"], "invalid choice: 'eager'"),
        (["simulate", "--simulator", "vcs"], "invalid choice: 'vcs'"),
        (["simulate", "--tokens", "0"], "--tokens: 0 is less than 1"),
        (["simulate", "--tokens", "many"], "--tokens: invalid integer value: 'many'"),
        (["simulate", "--layer", "-1"], "--layer: -1 is less than 0"),
        (["simulate", "--checkpoint", "x.bin", "--arch", "bert"], "not allowed with"),
        (["presets", "--json", "nowhere/x.json"], "--json: there is no folder nowhere"),
    ],
)
def test_wrong_arguments(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, *arguments)
    assert not list(tmp_path.iterdir())


def test_impossible_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("columns = 12\n")
    output = tmp_path / "out"
    message = fails(capsys, "generate", "--config", str(path), "-o", str(output))
    assert "columns=12 neither divides block=32" in message
    assert list(tmp_path.iterdir()) == [path]


def test_output_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out"
    path.write_text("mine")
    assert "is no folder" in fails(capsys, "generate", "--preset", "tiny", "-o", str(path))
    assert path.read_text() == "mine"


def test_json_is_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--json", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("afternorm: error: ")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def simulate(
    monkeypatch: pytest.MonkeyPatch, result: LayerResult, *arguments: str
) -> tuple[int, dict[str, Any]]:
    """Status of `afternorm simulate`, and what it asked for."""
    asked: dict[str, Any] = {}

    def simulate_layer(config: Any, **keywords: Any) -> LayerResult:
        asked.update(keywords, config=config)
        return result

    monkeypatch.setattr(afternorm.layer_simulation, "simulate_layer", simulate_layer)
    return main(["simulate", *arguments]), asked


def test_simulate_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    status, asked = simulate(monkeypatch, RESULT)
    assert status == 0
    assert asked == {
        "config": preset("small"),
        "checkpoint": None,
        "layer": 0,
        "arch": "llama",
        "tokens": 64,
        "schedules": ("serial", "interleaved", "deferred"),
        "seed": 0,
        "simulator": "verilator",
        "threads": 1,
        "waves": None,
    }


def test_simulate_options(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "--preset tiny --checkpoint m.bin --layer 3 --tokens 5 --schedule serial --seed 9"
    line += " --simulator icarus --threads 2 --waves traces"
    _, asked = simulate(monkeypatch, RESULT, *line.split())
    assert asked["checkpoint"] == Path("m.bin")
    assert asked["schedules"] == ("serial",)
    assert asked["waves"] == Path("traces")
    assert (asked["layer"], asked["tokens"], asked["seed"]) == (3, 5, 9)
    assert (asked["config"], asked["simulator"]) == (preset("tiny"), "icarus")
    assert asked["threads"] == 2


def test_simulate_prints_and_writes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "result.json"
    status, _ = simulate(monkeypatch, RESULT, "--json", str(path))
    assert status == 0
    numbers = json.loads(path.read_text())
    assert numbers["exact"]
    assert [run["cycles"] for run in numbers["schedules"]] == [24690, 12345]
    assert numbers["schedules"][1]["engines"]["matmul"]["busy"] == 10240
    captured = capsys.readouterr()
    assert captured.err == ""
    rows = [line.split() for line in captured.out.splitlines()]
    serial = ["serial", "24,690", "2.000", "10,000", "7", "4,096", "0", "0.01510", "-"]
    deferred = ["deferred", "12,345", "1.000", *serial[3:]]
    assert serial in rows
    assert deferred in rows
    assert ["deferred", "10,240", "82.9%", "3", "2", "1"] in rows
    assert "serial: idle slots 7: exp 5, load 2" in captured.out
    assert numbers["schedules"][1]["lost"] == {"exp": 5, "load": 2, "fetch": 0}


def test_simulate_tells_of_a_mismatch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = replace(RESULT, schedules=[replace(RUN, mismatches=1)])
    status, _ = simulate(monkeypatch, wrong)
    assert status == 1
    assert "differs from the golden machine" in capsys.readouterr().err
