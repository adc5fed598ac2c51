# SPDX-License-Identifier: Apache-2.0
"""Generated Verilog and its description."""

import getpass
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest

from afternorm.cli import main
from afternorm.config import PRESETS, preset
from afternorm.files import write_directory, write_file
from afternorm.generate import TOP, Wrapper, axi_lite, generate, memory_map
from afternorm.register_map import build_id, register_map
from afternorm.units import UNITS, timings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=get_args(Wrapper))
def wrapper(request: pytest.FixtureRequest) -> Wrapper:
    chosen: Wrapper = request.param
    return chosen


@pytest.fixture(scope="module")
def files(wrapper: Wrapper) -> dict[str, str]:
    return generate(preset("tiny"), wrapper=wrapper)


def test_two_runs_give_the_same_bytes(files: dict[str, str], wrapper: Wrapper) -> None:
    assert generate(preset("tiny"), wrapper=wrapper) == files


def test_files(files: dict[str, str], wrapper: Wrapper) -> None:
    always = {"afternorm.v", "afternorm.json", "afternorm.core", "afternorm.vlt"}
    driver = {"afternorm.h", "afternorm.c", "afternorm_registers.h", "registers.md"}
    assert set(files) == (always | driver if wrapper == "axi" else always)


def test_ports_are_buses(files: dict[str, str], wrapper: Wrapper) -> None:
    names = {port["name"] for port in json.loads(files["afternorm.json"])["ports"]}
    buses = {name for name in names if name.startswith(("m_axi_", "s_axil_"))}
    if wrapper == "axi":
        assert names - buses == {"clk", "rst", "interrupt"}
        assert {"m_axi_araddr", "m_axi_wlast", "s_axil_awaddr", "s_axil_rresp"} <= buses
    else:
        assert not buses


def test_nothing_of_the_machine_is_inside(files: dict[str, str]) -> None:
    for text in files.values():
        assert str(ROOT) not in text
        assert "/site-packages" not in text
        assert "/hdl/" not in text
        assert not re.search(r"\b20\d\d-\d\d-\d\d\b", text)
        if (user := getpass.getuser()) != "root":
            assert user not in text


def test_every_signal_has_a_name(files: dict[str, str]) -> None:
    """Amaranth names a signal by the variable it is assigned to, but for one of several."""
    assert not re.search(r"\\\$(signal|like)", files["afternorm.v"])


def test_equal_modules_are_emitted_once(files: dict[str, str]) -> None:
    bodies = re.findall(r"^module \S+?\((.*?)^endmodule", files["afternorm.v"], re.M | re.S)
    assert len(bodies) == len(set(bodies))
    # one for the many in the middle, and a few for edges and widths
    elements = re.findall(r"^module \S*ProcessingElement", files["afternorm.v"], re.M)
    assert 0 < len(elements) <= preset("tiny").rows  # they differ in the width of their sums


def test_ports_are_those_of_the_verilog(files: dict[str, str]) -> None:
    body = re.search(r"^module afternorm\(.*?^endmodule", files["afternorm.v"], re.M | re.S)
    assert body is not None
    found = {
        (name, direction, int(high or 0) + 1)
        for direction, high, name in re.findall(
            r"^  (input|output) (?:signed )?(?:\[(\d+):0\] )?(\S+);", body[0], re.M
        )
    }
    ports = json.loads(files["afternorm.json"])["ports"]
    assert {(port["name"], port["direction"], port["width"]) for port in ports} == found


def test_description(files: dict[str, str], wrapper: Wrapper) -> None:
    description = json.loads(files["afternorm.json"])
    assert description["wrapper"] == wrapper
    assert description["parameters"] == preset("tiny").to_dict()
    assert description["derived"]["macs"] == 32
    assert description["versions"]["afternorm"] == "0.1.0"
    assert description["latencies"] == timings(preset("tiny"))


def test_registers_of_the_description() -> None:
    found = axi_lite(preset("tiny"))
    assert found["registers"]["control"] == {
        "offset": 0,
        "fields": {
            name: {"bit": bit, "width": 1, "access": "W1S", "reset": 0}
            for bit, name in enumerate(("start", "reset", "stop"))
        },
    }
    assert found["registers"]["config_block"]["fields"]["value"]["reset"] == 8
    assert len(found["registers"]) == len(register_map(preset("tiny")))
    assert found["build_id"] == build_id(preset("tiny"))


@pytest.mark.parametrize("name", PRESETS)
def test_memory_map(name: str) -> None:
    config = preset(name)
    found = memory_map(config)
    spans = []
    for region in found["regions"].values():
        assert 0 < region["words"] <= found["tile_stride"]
        for tile in range(region["tiles"]):
            base = region["base"] + tile * found["tile_stride"]
            spans.append((base, base + region["words"]))
    spans.sort()
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert spans[-1][1] <= 1 << found["address_bits"]
    registers = found["registers"].values()
    assert len(set(registers)) == len(registers)
    assert max(registers) == found["regions"]["registers"]["words"] - 1


def test_latencies() -> None:
    config = preset("tiny")
    found = timings(config)
    assert set(found) <= set(UNITS)
    assert {"exp", "matmul", "reduce", "scale", "tree", "vector"} <= set(found)
    assert all(cycles >= 0 for unit in found.values() for cycles in unit.values())


def test_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: Any, wrapper: Wrapper
) -> None:
    config = tmp_path / "mine.toml"
    config.write_text('preset = "tiny"\n')
    folder = tmp_path / "a" / "b"
    numbers = tmp_path / "numbers.json"
    arguments = ["generate", "--config", str(config), "-o", str(folder), "--json", str(numbers)]
    # The default is AXI.
    arguments += ["--wrapper", wrapper] if wrapper != "axi" else []
    assert main(arguments) == 0
    assert {path.name: path.read_text() for path in folder.iterdir()} == files
    assert json.loads(numbers.read_text()) == json.loads(files["afternorm.json"])
    captured = capsys.readouterr()
    assert "afternorm.v" in captured.out
    assert captured.err == ""
    assert {path.name for path in tmp_path.iterdir()} == {"mine.toml", "a", "numbers.json"}


def test_directory_is_whole_or_absent(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_directory(tmp_path / "new", {"first": "1", "none/second": "2"})
    assert not list(tmp_path.iterdir())


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "first").write_text("old")
    write_directory(tmp_path, {"first": "1", "second": "2"})
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert texts == {"mine": "mine", "first": "1", "second": "2"}


def test_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_file(path, "new \udc80")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_verilog_grows_no_faster_than_the_array() -> None:
    """Equal elements are written once; times are scripts/bench_generation.py's."""
    sizes = [
        len(generate(preset("small").with_(lanes=4, columns=columns))[f"{TOP}.v"])
        for columns in (4, 8, 16, 32, 64)
    ]
    assert all(larger < 2 * smaller for smaller, larger in pairwise(sizes)), sizes
