# SPDX-License-Identifier: Apache-2.0
"""Configurations: presets, TOML files, and what is said of impossible ones."""

from pathlib import Path

import pytest

from afternorm.config import PRESETS, Config, load_config, preset
from afternorm.errors import ConfigError
from afternorm.generate import generate
from afternorm.memory import memory_bits
from afternorm.simulation import build


@pytest.mark.parametrize(
    ("name", "rows", "columns", "tiles"),
    [
        ("tiny", 8, 4, 1),
        ("small", 32, 8, 1),
        ("medium", 32, 16, 4),
        ("large", 32, 32, 4),
        ("ulx3s", 32, 4, 1),
    ],
)
def test_presets(name: str, rows: int, columns: int, tiles: int) -> None:
    config = preset(name)
    assert (config.rows, config.columns, config.tiles) == (rows, columns, tiles)
    assert config.macs == rows * columns * tiles
    # an MX block of results needs `block` columns, the paired outputs of a gate twice as many
    assert config.acc_width >= max(config.columns, 2 * config.block)


def test_every_preset_is_tested() -> None:
    assert set(PRESETS) == {"nano", "tiny", "small", "medium", "large", "ulx3s"}


def test_unknown_preset() -> None:
    with pytest.raises(ConfigError, match="unknown preset 'huge'; there are nano, tiny, small"):
        preset("huge")


def test_tiles_of_rtl() -> None:
    preset("small").with_(tiles=16).check_rtl()
    with pytest.raises(ConfigError, match="RTL is generated for 1 to 16 tiles, not 17; take fewer"):
        generate(preset("small").with_(tiles=17))
    with pytest.raises(ConfigError, match="not 1024"):
        build(preset("small").with_(tiles=1024))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tiles": 0}, "tiles must be 1 to 1024, not 0"),
        ({"block": 24}, r"block must be one of \(8, 16, 32\), not 24"),
        ({"columns": 12}, "columns=12 neither divides block=32 .*; take 8 or 16"),
        ({"columns": 48}, "columns=48 neither divides block=32 .*; take 32 or 64"),
        ({"columns": 4}, "lanes=8 does not divide columns=4"),
        ({"fraction_bits": 25}, "fraction_bits must be 4 to 24, not 25"),
        ({"fraction_bits": True}, "fraction_bits must be an integer, not True"),
        ({"acc_width": 40}, "acc_width=40 is no multiple of block=32"),
        ({"stat_depth": 32}, "stat_depth=32 holds less than the rows_max=64 rows"),
        ({"scale_depth": 1020}, "scale_depth=1020 is no multiple of lanes=8"),
        ({"scratchpad_banks": 3}, "scratchpad_banks must be a power of two, not 3"),
        ({"scratchpad_depth": 6000}, "scratchpad_depth=6000 must be a power of two"),
        ({"rows_max": "64"}, "rows_max must be an integer, not '64'"),
    ],
)
def test_impossible_sizes(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        preset("small").with_(**changes)


def test_suggested_columns_are_possible() -> None:
    for block in (8, 16, 32):
        for columns in range(1, 61):
            sizes = {"block": block, "columns": columns, "lanes": 2, "acc_width": 64}
            try:
                Config(**sizes)
            except ConfigError as error:
                if "; take " in str(error):
                    low, high = map(int, str(error).partition("; take ")[2].split(" or "))
                    assert low < columns < high
                    for possible in (low, high):
                        assert block % possible == 0 or possible % block == 0


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('preset = "tiny"\nfraction_bits = 9\n')
    assert load_config(path) == preset("tiny").with_(fraction_bits=9)
    path.write_text("tiles = 2\n")
    assert load_config(path) == preset("small").with_(tiles=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("columns 8", "is not TOML"),
        ("colums = 8", "unknown size 'colums'; known are acc_banks, "),
        ('preset = "huge"', "unknown preset 'huge'"),
        ("preset = [1]", "unknown preset"),
        ("columns = 8.0", "columns must be an integer, not 8.0"),
        ("[columns]\na = 1", "columns must be an integer"),
    ],
)
def test_bad_toml(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_unreadable_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.toml: No such file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path)
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(path)


def test_memory_bits() -> None:
    config = preset("tiny")
    bits = memory_bits(config)
    assert bits["scratchpad"] == config.scratchpad_depth * (8 * 8 + 10)
    assert bits["accumulators"] == 4 * 16 * 16 * 26
    doubled = memory_bits(config.with_(tiles=2))
    for memory, size in bits.items():
        assert doubled[memory] == size * (1 if memory == "fetch" else 2)
