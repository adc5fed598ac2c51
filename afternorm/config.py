# SPDX-License-Identifier: Apache-2.0
"""Every size of the accelerator, and the named presets."""

import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from afternorm.errors import ConfigError

BLOCKS = (8, 16, 32)
RTL_TILES = 16
"""The most tiles of generated RTL: every tile is elaborated and simulated by itself."""

_LIMITS = {
    "columns": (1, 64),
    "tiles": (1, 1024),
    "fraction_bits": (4, 24),
    "lanes": (2, 64),
    "rows_max": (2, 1024),
    "acc_width": (8, 256),
    "acc_banks": (2, 8),
    "scratchpad_banks": (2, 8),
    "scratchpad_depth": (64, 1 << 20),
    "vector_depth": (16, 1 << 16),
    "scale_depth": (8, 4096),
    "stat_depth": (8, 4096),
    "dram_width": (64, 512),
    "fetch_depth": (4, 64),
    "queue_depth": (2, 64),
    "semaphores": (8, 62),
    "watchdog_cycles": (64, 1 << 20),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of one accelerator; the same object parametrizes RTL, golden machine and compiler.

    Attributes
    ----------
    block : elements of an MX block, and rows R of the systolic array: 8, 16 or 32.
    columns : columns C of the array; divides `block` or is a multiple of it.
    tiles : tiles T, each with an array, a scratchpad and a vector unit.
    fraction_bits : fraction bits F of the accumulator and vector float, 4 to 24.
    lanes : lanes E of the vector unit and of the reduction tree; divides `columns` and `block`.
    rows_max : rows M of an accumulator bank, the most that one instruction takes.
    acc_width : columns W of an accumulator bank; a multiple of `columns` and of `block`.
    acc_banks : accumulator banks.
    scratchpad_depth : MX blocks in a tile's scratchpad.
    scratchpad_banks : independent banks of the scratchpad, by the top address bits.
    vector_depth : words of E floats in a tile's vector memory.
    scale_depth : row scales (pairs of floats) in a tile's scale memory.
    stat_depth : row statistics (pairs of floats) in a tile's statistics memory.
    dram_width : bits of a beat of the DRAM port: 64, 128, 256 or 512.
    fetch_depth : instructions that are fetched from DRAM ahead of their turn.
    queue_depth : instructions in each engine's queue.
    semaphores : counting semaphores of the scheduler.
    watchdog_cycles : cycles without progress after which a deadlock is reported.

    Raises
    ------
    ConfigError
        If a value is impossible; the message names it and the remedy.
    """

    block: int = 32
    columns: int = 8
    tiles: int = 1
    fraction_bits: int = 15
    lanes: int = 8
    rows_max: int = 64
    acc_width: int = 64
    acc_banks: int = 4
    scratchpad_depth: int = 8192
    scratchpad_banks: int = 4
    vector_depth: int = 4096
    scale_depth: int = 1024
    stat_depth: int = 256
    dram_width: int = 128
    fetch_depth: int = 16
    queue_depth: int = 16
    semaphores: int = 48
    watchdog_cycles: int = 4096

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"{field.name} must be an integer, not {value!r}")
        if self.block not in BLOCKS:
            raise ConfigError(f"block must be one of {BLOCKS}, not {self.block}")
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} must be {low} to {high}, not {value}")
        if self.block % self.columns and self.columns % self.block:
            below = (
                1 << (self.columns.bit_length() - 1)
                if self.columns < self.block
                else self.columns // self.block * self.block
            )
            raise ConfigError(
                f"columns={self.columns} neither divides block={self.block} nor is a multiple of "
                f"it; take {below} or {below + min(below, self.block)}"
            )
        if self.dram_width & (self.dram_width - 1):
            raise ConfigError(f"dram_width must be a power of two, not {self.dram_width}")
        for larger in ("columns", "block"):
            if getattr(self, larger) % self.lanes:
                raise ConfigError(
                    f"lanes={self.lanes} does not divide {larger}={getattr(self, larger)}"
                )
        for smaller in ("columns", "block"):
            if self.acc_width % getattr(self, smaller):
                raise ConfigError(
                    f"acc_width={self.acc_width} is no multiple of "
                    f"{smaller}={getattr(self, smaller)}"
                )
        for name in ("scale_depth", "stat_depth"):
            if getattr(self, name) < self.rows_max:
                raise ConfigError(
                    f"{name}={getattr(self, name)} holds less than the rows_max={self.rows_max} "
                    "rows of one instruction"
                )
        if self.scale_depth % self.lanes:
            raise ConfigError(
                f"scale_depth={self.scale_depth} is no multiple of lanes={self.lanes}"
            )
        if self.scratchpad_banks & (self.scratchpad_banks - 1):
            raise ConfigError(
                f"scratchpad_banks must be a power of two, not {self.scratchpad_banks}"
            )
        if self.scratchpad_depth % self.scratchpad_banks or (
            (bank := self.scratchpad_depth // self.scratchpad_banks) & (bank - 1)
        ):
            raise ConfigError(
                f"scratchpad_depth={self.scratchpad_depth} must be a power of two, "
                f"so that {self.scratchpad_banks} banks share it"
            )

    def check_rtl(self) -> None:
        """Refuse to make RTL of more tiles than were ever simulated or synthesized together.

        The compiler, the golden machine and the model of cycles take them all.

        Raises
        ------
        ConfigError
            If there are more.
        """
        if self.tiles > RTL_TILES:
            raise ConfigError(
                f"RTL is generated for 1 to {RTL_TILES} tiles, not {self.tiles}; take fewer, or "
                "the model of cycles (bench --on model)"
            )

    @property
    def rows(self) -> int:
        """Rows R of the array: a column holds one block."""
        return self.block

    @property
    def macs(self) -> int:
        """Int8 multipliers of all arrays."""
        return self.block * self.columns * self.tiles

    @property
    def float_width(self) -> int:
        """Bits of one float."""
        return 11 + self.fraction_bits

    @property
    def column_tiles(self) -> int:
        """Array widths in one accumulator bank, W / C."""
        return self.acc_width // self.columns

    def with_(self, **changes: int) -> Self:
        """A copy with some sizes changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, int]:
        """All sizes by name."""
        return asdict(self)


PRESETS = {
    "nano": Config(
        block=8,
        columns=2,
        fraction_bits=9,
        lanes=2,
        rows_max=8,
        acc_width=32,
        acc_banks=2,
        scratchpad_depth=1024,
        scratchpad_banks=2,
        vector_depth=1024,
        scale_depth=64,
        stat_depth=32,
        dram_width=64,
        fetch_depth=4,
        queue_depth=4,
        semaphores=24,
        watchdog_cycles=1024,
    ),
    "tiny": Config(
        block=8,
        columns=4,
        lanes=4,
        rows_max=16,
        acc_width=16,
        vector_depth=2048,
        scale_depth=256,
        stat_depth=64,
        dram_width=64,
        watchdog_cycles=1024,
    ),
    "small": Config(),
    "medium": Config(columns=16, tiles=4, lanes=16, rows_max=128, stat_depth=512, dram_width=256),
    "large": Config(
        columns=32,
        tiles=4,
        lanes=16,
        rows_max=128,
        acc_width=64,
        scratchpad_depth=16384,
        stat_depth=512,
        dram_width=512,
    ),
    "ulx3s": Config(
        columns=4,
        lanes=2,
        rows_max=32,
        scratchpad_depth=4096,
        scratchpad_banks=2,
        vector_depth=2048,
        scale_depth=256,
        stat_depth=64,
        dram_width=64,
        fetch_depth=4,
        queue_depth=4,
        semaphores=16,
    ),
}
"""Configurations by name: `nano`, the least that runs the adding model; `tiny` for tests, `small`
for a small FPGA, `medium`, `large`; `ulx3s` for the board, with most of its chip's 156 multipliers
in the array."""


def load_config(path: Path) -> Config:
    """A configuration from a TOML file: an optional `preset`, then sizes that differ from it.

    Raises
    ------
    ConfigError
        If the file cannot be read, names an unknown preset or size, or the sizes are impossible.
    """
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    base = preset(str(table.pop("preset", "small")))
    known = {field.name for field in fields(Config)}
    if unknown := sorted(set(table) - known):
        raise ConfigError(
            f"{path}: unknown size {unknown[0]!r}; known are {', '.join(sorted(known))}"
        )
    return base.with_(**table)


def preset(name: str) -> Config:
    """The preset of that name.

    Raises
    ------
    ConfigError
        If there is none; the message lists them.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
