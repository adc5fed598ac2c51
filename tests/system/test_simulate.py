# SPDX-License-Identifier: Apache-2.0
"""`afternorm simulate` from the command line to the RTL and back."""

import json
import shutil
from pathlib import Path

import pytest

from afternorm.checkpoints import find_checkpoint
from afternorm.cli import main

STORIES = find_checkpoint("stories260K.bin")


def test_all_schedules_of_a_seeded_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "result.json"
    assert main(["simulate", "--preset", "tiny", "--tokens", "8", "--json", str(path)]) == 0
    numbers = json.loads(path.read_text())
    assert numbers["exact"]
    runs = {run["schedule"]: run for run in numbers["schedules"]}
    assert set(runs) == {"serial", "interleaved", "deferred"}
    assert runs["deferred"]["cycles"] < runs["serial"]["cycles"]
    for run in runs.values():
        assert run["mismatches"] == 0
        assert run["words"] > 1000
        assert run["error"] < 0.05
        assert run["engines"]["matmul"]["busy"] <= run["cycles"]
    assert f"{runs['deferred']['cycles']:,}" in capsys.readouterr().out


@pytest.mark.slow
def test_waves(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    arguments = ["--preset", "tiny", "--tokens", "2", "--schedule", "deferred"]
    assert main(["simulate", *arguments, "--waves", str(folder)]) == 0
    assert (folder / "deferred" / "afternorm.vcd").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog is not installed")
def test_icarus() -> None:
    arguments = ["--preset", "tiny", "--tokens", "2", "--schedule", "deferred"]
    assert main(["simulate", *arguments, "--simulator", "icarus"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "absent.bin"], "absent.bin"),
        (["--tokens", "1500"], "the work needs"),
        pytest.param(
            ["--checkpoint", str(STORIES), "--layer", "7"],
            "there is no layer 7",
            marks=pytest.mark.skipif(STORIES is None, reason="AFTERNORM_MODELS names no model"),
        ),
        pytest.param(
            ["--checkpoint", str(STORIES), "--tokens", "513"],
            "room for 512 tokens",
            marks=pytest.mark.skipif(STORIES is None, reason="AFTERNORM_MODELS names no model"),
        ),
    ],
    ids=["absent", "too large", "layer", "context"],
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
    assert main(["simulate", "--preset", "tiny", *arguments, "--json", "out.json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_missing_compiler_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("AFTERNORM_CACHE", str(tmp_path / "cache"))
    assert main(["simulate", "--preset", "tiny", "--tokens", "2"]) == 2
    error = capsys.readouterr().err
    assert "apt-get install g++ make perl" in error
    assert error.count("\n") == 1
