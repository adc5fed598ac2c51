# SPDX-License-Identifier: Apache-2.0
"""The `run` command."""

import json
from pathlib import Path

import pytest

from afternorm.cli import main

SUMS = {"27+48=": "75", "99+99=": "198", "5+7=": "12"}
PROMPTS = [argument for text in SUMS for argument in ("--prompt", text)]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Standard output of a run that goes well."""
    assert main(["run", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a run that does not."""
    assert main(["run", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("afternorm: error: ") and captured.err.count("\n") == 1
    return captured.err


def test_adder_on_rtl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.json"
    arguments = ["--preset", "tiny", "--schedule", "all", "--json", str(file)]
    out = run(capsys, "adder", *PROMPTS, *arguments)
    assert out.splitlines()[:3] == [text + answer for text, answer in SUMS.items()]
    result = json.loads(file.read_text())
    assert result["exact"] is True and result["backend"] == "rtl"
    runs = {run["schedule"]: run for run in result["runs"]}
    assert list(runs) == ["serial", "interleaved", "deferred"]
    cycles = {}
    for schedule, one in runs.items():
        assert one["mismatches"] == 0 and one["flags"] == []
        # A program for the prompt and one for each new token but the last, which ends the text.
        assert [program["rows"] for program in one["programs"]][:3] == [7, 1, 1]
        # 14 logits and the flags of each.
        assert one["words"] == 15 * len(one["programs"])
        cycles[schedule] = sum(program["cycles"] for program in one["programs"])
        assert cycles[schedule] > sum(program["ideal"] for program in one["programs"])
        assert [text["text"] for text in one["texts"]] == [a + b for a, b in SUMS.items()]
        # Weights stream: they are more than the scratchpad holds.
        assert all(program["dram_bytes"] > 40_000 for program in one["programs"])
        assert all(program["dram_needed"] < program["dram_bytes"] for program in one["programs"])
        slots = sum(sum(program["lost"].values()) for program in one["programs"])
        assert slots > 0 and f"{schedule}: idle slots {slots:,}: " in out
    assert cycles["deferred"] < cycles["serial"]


@pytest.mark.parametrize("backend", ["golden", "float"])
def test_adder_without_rtl(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "adder", *PROMPTS, "--backend", backend)
    assert out.splitlines()[:3] == [text + answer for text, answer in SUMS.items()]


def test_seeded_sampling(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["adder", "--backend", "golden", "--preset", "tiny", "--temperature", "3"]
    texts = [
        run(capsys, *arguments, "--prompt", "1", "--seed", seed).splitlines()[0]
        for seed in ("1", "1", "2")
    ]
    assert texts[0] == texts[1] != texts[2]


def test_encoder(minilm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.json"
    texts = ["A cat sleeps on the sofa.", "The kitten is napping.", "Stock markets fell today."]
    options = [argument for text in texts for argument in ("--text", text)]
    options += ["--backend", "golden", "--preset", "medium", "--json", str(file)]
    out = run(capsys, str(minilm), *options)
    assert "1.000" in out and "the kitten is napping." in out
    first, second, third = (text["embedding"] for text in json.loads(file.read_text())["texts"])
    alike = sum(a * b for a, b in zip(first, second, strict=True))
    assert alike > 0.5 > 0.3 > abs(sum(a * b for a, b in zip(first, third, strict=True)))


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.json"
    options = ["--backend", "golden", "--preset", "tiny", "--json", str(file)]
    assert "no such file" in fails(capsys, "nowhere", *options)
    assert "cannot encode '2*3='" in fails(capsys, "adder", "--prompt", "2*3=", *options)
    long = "1+" * 9
    assert "16" in fails(capsys, "adder", "--prompt", long, *options)
    assert "16 tokens, not 20" in fails(
        capsys, "adder", "--prompt", "1+1=", "--tokens", "15", *options
    )
    assert "temperature=-1" in fails(capsys, "adder", "--temperature", "-1", *options)
    assert "--clock" in fails(capsys, "adder", "--clock", "0", *options)
    small = tmp_path / "small.toml"
    small.write_text('preset = "tiny"\nvector_depth = 128\n')
    arguments = ["--backend", "golden", "--config", str(small), "--prompt", "1+1="]
    assert "tokens would fit" in fails(capsys, "adder", *arguments)
    assert not file.exists()
