# SPDX-License-Identifier: Apache-2.0
"""The register map, and what is made of it: page and C header."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from afternorm.config import PRESETS, Config, preset
from afternorm.isa import Engine, Error, Flag
from afternorm.memory_map import REGISTER_BITS, Counter, Lost, Register, Status
from afternorm.package.header import header
from afternorm.package.register_page import member_docs, register_page
from afternorm.register_map import OFFSET_BITS, build_id, register_map

ROOT = Path(__file__).parents[2]
TINY = preset("tiny")


def macros(text: str) -> dict[str, int]:
    """The constants that a header defines, macros and enumerators, without ``AFTERNORM_``."""
    found = re.findall(r"^#define AFTERNORM_(\w+) (\w+)$", text, re.M)
    found += re.findall(r"^    AFTERNORM_(\w+) = (\d+),?$", text, re.M)
    assert len({name for name, _ in found}) == len(found)
    return {name: int(value.removesuffix("u"), 0) for name, value in found}


def test_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "registers.md").read_text(encoding="utf-8")
    assert page == register_page(), "run scripts/register_docs.py"


@pytest.mark.parametrize("name", PRESETS)
def test_registers_do_not_overlap(name: str) -> None:
    registers = register_map(preset(name))
    offsets = {register.offset for register in registers}
    assert len(offsets) == len({register.name for register in registers}) == len(registers)
    assert max(offsets) < 1 << OFFSET_BITS
    for register in registers:
        spans = [(field.low, field.low + field.width) for field in register.fields]
        assert all(end <= low for (_, end), (low, _) in pairwise(spans)), register.name
        assert spans[0][0] >= 0 and spans[-1][1] <= REGISTER_BITS, register.name
        assert len({field.name for field in register.fields}) == len(register.fields)
        for field in register.fields:
            assert field.reset >> field.width == 0
            assert field.values is None or max(field.values) >> field.width == 0


def test_every_value_can_be_read() -> None:
    registers = {register.name: register for register in register_map(TINY)}
    for name, value in TINY.to_dict().items():
        assert registers[f"CONFIG_{name.upper()}"].reset == value
    assert registers["BUILD_ID"].reset == build_id(TINY)
    assert {f"{e.name}_{c.name}" for e in Engine for c in Counter} <= set(registers)


def test_build_id_tells_configurations_apart() -> None:
    others = [TINY.with_(queue_depth=8), *(preset(name) for name in PRESETS)]
    assert len({build_id(config) for config in others}) == len(others)
    assert build_id(Config()) == build_id(preset("small"))


def test_header() -> None:
    found = macros(header(TINY))
    for register in register_map(TINY):
        assert found.pop(f"{register.name}_OFFSET") == register.offset
        for field in register.fields:
            mask = found.pop(f"{register.name}_{field.name.upper()}_MASK")
            low = found.pop(f"{register.name}_{field.name.upper()}_SHIFT")
            assert mask == field.mask
            assert mask >> low == (1 << field.width) - 1
    for name, value in TINY.to_dict().items():
        assert found.pop(f"CONFIG_{name.upper()}") == value
    assert found.pop("BUILD_ID") == build_id(TINY)
    assert found.pop("VERSION") == 1 << 8  # 0.1.0
    assert (found.pop("ENGINES"), found.pop("COUNTERS")) == (len(Engine), len(Counter))
    assert found.pop("LOSTS") == len(Lost)
    assert found.pop("INSTRUCTION_BYTES") == 64
    enumerations = {"STATUS": Status, "ERROR": Error, "ENGINE": Engine, "COUNTER": Counter}
    enumerations["LOST"] = Lost
    for name, values in enumerations.items():
        for value in values:
            assert found.pop(f"{name}_{value.name}") == value
    for flag in Flag:
        assert found.pop(f"FLAG_{flag.name}") == 1 << flag
    assert not found


def test_page_of_one_accelerator() -> None:
    page = register_page(TINY)
    assert f"| **BUILD_ID** | 31-0 | | RO | {build_id(TINY):#x} |" in page
    assert "constant |" not in page
    assert len(re.findall(r"^\| 0x\w+ \| \*\*", page, re.M)) == len(register_map(TINY))
    offsets = [int(offset, 16) for offset in re.findall(r"^\| (0x\w+) \|", page, re.M)]
    assert offsets == sorted(offsets)


def test_codes_come_with_their_meaning() -> None:
    docs = member_docs(Error)
    assert set(docs) == {error.name for error in Error} - {"NONE"}
    assert all(f"| {docs[name]} |" in register_page() for name in docs)
    # several lines of source are one
    assert all("\n" not in doc for doc in member_docs(Register).values())
