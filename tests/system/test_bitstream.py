# SPDX-License-Identifier: Apache-2.0
"""A board's bitstream from beginning to end: Yosys, nextpnr and ecppack."""

import json
from pathlib import Path

import pytest

from afternorm.board.bitstream import BITSTREAM, REPORT
from afternorm.board.boards import BOARDS
from afternorm.cli import main


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["nano", BOARDS["ulx3s"].preset])
def test_bitstream(preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, numbers = tmp_path / "built", tmp_path / "bitstream.json"
    clock = BOARDS["ulx3s"].clock
    arguments = ["bitstream", "--board", "ulx3s", "--preset", preset, "-o", str(folder)]
    assert main([*arguments, "--json", str(numbers)]) == 0
    assert sorted(file.name for file in folder.iterdir()) == sorted([BITSTREAM, REPORT])
    # A comment, then the preamble that an ECP5 waits for.
    written = (folder / BITSTREAM).read_bytes()
    assert b"Part: LFE5U-85F" in written[:200]
    assert b"\xff\xff\xbd\xb3" in written[:400]
    assert len(written) > 100_000
    found = json.loads(numbers.read_text())
    achieved = json.loads((folder / REPORT).read_text())["fmax"].values()
    assert found["clock"] == clock
    assert found["timing"]["fmax"] == round(min(its["achieved"] for its in achieved), 2) >= clock
    for kind in ("lut", "ff", "dsp", "bram"):
        assert 0 < found["used"][kind] < found["available"][kind]
    assert f"for a clock of {clock:g} MHz" in capsys.readouterr().out
