# SPDX-License-Identifier: Apache-2.0
"""Builds of simulations: made once, however many want them, and whole or not at all."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from afternorm.errors import AfternormError
from tb import runner
from tb.runner import Built, build_verilog

VERILOG = "module afternorm_wire(i, o);\n  input i;\n  output o;\n  assign o = i;\nendmodule\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AFTERNORM_CACHE", str(tmp_path))
    return tmp_path


def wire() -> Built:
    return build_verilog(VERILOG, name="afternorm_wire")


def test_a_second_builder_waits(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    began: list[Path] = []

    def slow(directory: Path, *_: Any) -> None:
        began.append(directory)
        time.sleep(0.5)

    monkeypatch.setattr(runner, "_verilate", slow)
    built: list[Built] = []
    both = [threading.Thread(target=lambda: built.append(wire())) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(began) == 1
    assert built[0] == built[1]
    assert list(cache.iterdir()) == [built[0].directory]


def test_a_failed_build_is_made_again(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def failing(*_: Any) -> None:
        raise AfternormError("g++ failed")

    with monkeypatch.context() as patched:
        patched.setattr(runner, "_verilate", failing)
        with pytest.raises(AfternormError, match=r"g\+\+ failed"):
            wire()
    monkeypatch.setattr(runner, "_verilate", lambda *_: None)
    assert (wire().directory / "afternorm_wire.v").read_text() == VERILOG
    assert list(cache.iterdir()) == [wire().directory]
