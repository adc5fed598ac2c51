# SPDX-License-Identifier: Apache-2.0
"""What the documentation says of the code."""

import importlib.util
import re
import shlex
from pathlib import Path

from afternorm.cli import parser
from afternorm.config import PRESETS

ROOT = Path(__file__).parents[1]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_instruction_table() -> None:
    spec = importlib.util.spec_from_file_location("isa_table", ROOT / "scripts" / "isa_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.updated(ARCHITECTURE) == ARCHITECTURE, "run scripts/isa_table.py"


def test_sizes() -> None:
    names = [*PRESETS]
    assert "| " + " | ".join(f"`{name}`" for name in names) + " |" in ARCHITECTURE
    rows = re.findall(r"^\| \w+ = `(\w+)` \|.*?\| ([\d |]+) \|$", ARCHITECTURE, re.M)
    assert len(rows) == 7
    for size, values in rows:
        expected = [PRESETS[name].to_dict()[size] for name in names]
        assert [int(value) for value in values.split("|")] == expected


def test_examples_parse() -> None:
    examples = re.findall(r"^\$ (afternorm .*?)(?:  #.*)?$", README, re.M)
    assert len(examples) >= 5
    for example in examples:
        options = parser().parse_args(shlex.split(example)[1:])
        assert options.run
