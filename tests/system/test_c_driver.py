# SPDX-License-Identifier: Apache-2.0
"""The C driver compiles without a warning; both drivers run programs on the RTL."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from afternorm.config import PRESETS, preset
from afternorm.driver import c_sources
from afternorm.memory_map import Register
from afternorm.package.header import header
from afternorm.register_map import build_id
from hdl.axi.wrapper import AxiAccelerator
from tb.runner import Built, build

TINY = preset("tiny")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wshadow")


def compile_driver(folder: Path, name: str, *options: str) -> Path:
    """The driver for the preset `name`, compiled with `options`."""
    assert shutil.which("cc") is not None
    for file, text in {**c_sources(), "afternorm_registers.h": header(preset(name))}.items():
        (folder / file).write_text(text)
    output = folder / "afternorm.so"
    command = ["cc", *STRICT, *options, "-o", str(output), str(folder / "afternorm.c")]
    subprocess.run(command, check=True)
    return output


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_driver(tmp_path_factory.mktemp("driver"), "tiny", "-shared", "-fPIC", "-O2")


@pytest.fixture(scope="module")
def built() -> Built:
    return build(AxiAccelerator(config=TINY), name="afternorm")


@pytest.mark.parametrize("name", PRESETS)
def test_driver_needs_no_library(tmp_path: Path, name: str) -> None:
    compile_driver(tmp_path, name, "-c", "-ffreestanding", "-nostdlib")


def test_cpp_links_with_it(tmp_path: Path) -> None:
    compile_driver(tmp_path, "tiny", "-c")
    source = tmp_path / "user.cpp"
    source.write_text(
        '#include "afternorm.h"\n'
        "int main() { return afternorm_result_string(AFTERNORM_OK)[0] != 'd'; }\n"
    )
    command = ["g++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-pedantic", str(source)]
    program = tmp_path / "user"
    subprocess.run([*command, str(tmp_path / "afternorm.so"), "-o", str(program)], check=True)
    subprocess.run([str(program)], check=True)


def test_registers_in_memory(library: Path) -> None:
    """Without a bus, registers are loads and stores from the base on."""
    registers = (ctypes.c_uint32 * 1024)()
    base = ctypes.c_size_t(ctypes.addressof(registers))
    driver = ctypes.CDLL(str(library))
    device = (ctypes.c_size_t * 2)()
    assert driver.afternorm_init(device, base, None) == -8
    registers[Register.BUILD_ID] = build_id(TINY)
    assert driver.afternorm_init(device, base, None) == 0
    assert driver.afternorm_start(device, ctypes.c_uint64(0x2A_8000_0040)) == 0
    assert registers[Register.PROGRAM_LOW] == 0x8000_0040
    assert registers[Register.PROGRAM_HIGH] == 0x2A
    assert registers[Register.CONTROL] == 1


@pytest.mark.parametrize("case", ["c_driver", "python_driver"])
def test_programs(built: Built, library: Path, case: str, seed: int) -> None:
    parameters = {"library": str(library), "config": TINY.to_dict()}
    built.run("tb.bench_drivers", parameters=parameters, seed=seed, testcase=case)
