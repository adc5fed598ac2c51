# SPDX-License-Identifier: Apache-2.0
"""The space file: which accelerators, schedules, workloads and scores.

::

    presets = ["tiny"]                      # default: small
    schedules = ["serial", "deferred"]      # default: deferred
    scores = ["cycles", "area", "accuracy"] # default: cycles and accuracy
    pareto = ["cycles", "lut", "error"]     # default: see below

    [sizes]                                 # of Config; all combinations
    columns = [4, 8]
    fraction_bits = [9, 15]

    [[workloads]]
    kind = "gemm"                           # norm, attention, layer, decode
    M = 64
    N = 64
    K = 64

    [cycles]
    dram_latency = 32
    hop_latency = 0

    [area]
    target = "ecp5"
    unit = "accelerator"

    [accuracy]                              # a model's loss beside the workloads' error
    checkpoint = "stories260K.bin"
    text = "texts.txt"

``[[sizes]]``, several tables, is the union of their combinations, for sizes that go together.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from afternorm.accuracy_run import read_texts
from afternorm.checkpoints import locate
from afternorm.compiler.layer_weights import Schedule
from afternorm.config import PRESETS, Config, preset
from afternorm.errors import ConfigError
from afternorm.explore.section import Section
from afternorm.explore.workloads import Checkpoint, Workload, read_workload
from afternorm.targets import KINDS, TARGETS
from afternorm.units import UNITS

SCHEDULES: tuple[Schedule, ...] = ("serial", "interleaved", "deferred")
_SCHEDULE: tuple[Schedule, ...] = ("deferred",)
SCORES = ("cycles", "area", "accuracy")


@dataclass(frozen=True, kw_only=True)
class Texts:
    """A model, and texts on which its loss is measured.

    Attributes
    ----------
    checkpoint : the model.
    texts : their tokens.
    """

    checkpoint: Checkpoint
    texts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An accelerator to be scored.

    Attributes
    ----------
    preset : what it began with.
    sizes : all its sizes by name.
    config : None if there can be no such accelerator.
    reason : why not, if so.
    """

    preset: str
    sizes: dict[str, int]
    config: Config | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Space:
    """What a space file says.

    Attributes
    ----------
    name : the file's, without its ending.
    presets, swept : presets, and names of the sizes that are given.
    candidates : accelerators, each once.
    schedules, workloads, scores : as in the file.
    objectives : scores by which points are compared, all the less the better.
    dram_latency, hop_latency : for the cycle model.
    target, unit : what is synthesized, and for which FPGA.
    texts : None if no model's loss is measured.
    """

    name: str
    presets: tuple[str, ...]
    swept: tuple[str, ...]
    candidates: list[Candidate]
    schedules: tuple[Schedule, ...]
    workloads: list[Workload]
    scores: tuple[str, ...]
    objectives: tuple[str, ...]
    dram_latency: int
    hop_latency: int
    target: str
    unit: str
    texts: Texts | None


def load_space(path: Path) -> Space:
    """Read a space file; paths in it are relative to its folder.

    Raises
    ------
    ConfigError
        If it cannot be read, or a value is missing, wrong or unknown.
    AfternormError
        If a checkpoint or text cannot be used.
    """
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    return _Reader(path, table).space()


class _Reader:
    """Reads a space file's tables."""

    def __init__(self, path: Path, table: dict[str, Any]) -> None:
        self.path = path
        self.root = Section(str(path), table)

    def space(self) -> Space:
        """All of it."""
        root = self.root
        presets = root.choices("presets", tuple(PRESETS), ["small"])
        schedules = root.choices("schedules", SCHEDULES, _SCHEDULE)
        scores = root.choices("scores", SCORES, ["cycles", "accuracy"])
        for name in SCORES:
            if root.has(name) and name not in scores:
                root.fail("scores", f"has no {name!r}: add it, or remove the table [{name}]")
        swept = self._sizes()
        cycles, area = self._section("cycles"), self._section("area")
        dram_latency = cycles.integer("dram_latency", 32, low=2)
        hop_latency = cycles.integer("hop_latency", 0, low=0)
        target = area.choice("target", tuple(TARGETS), "ecp5")
        unit = area.choice("unit", tuple(UNITS), "accelerator")
        cycles.finish()
        area.finish()
        workloads = self._workloads(needed="cycles" in scores)
        texts = self._texts() if root.has("accuracy") else None
        if "accuracy" in scores and not workloads and texts is None:
            root.fail("scores", "has 'accuracy', which takes [[workloads]] or a table [accuracy]")
        objectives = self._objectives(scores, workloads, texts)
        root.finish()
        return Space(
            name=self.path.stem,
            presets=presets,
            swept=tuple(dict.fromkeys(name for table in swept for name in table)),
            candidates=_candidates(presets, swept),
            schedules=schedules,
            workloads=workloads,
            scores=scores,
            objectives=objectives,
            dram_latency=dram_latency,
            hop_latency=hop_latency,
            target=target,
            unit=unit,
            texts=texts,
        )

    def _section(self, name: str) -> Section:
        return Section(f"{self.path}, [{name}]", self.root.raw(name, {}))

    def _sizes(self) -> list[dict[str, list[int]]]:
        """Tables of lists of sizes."""
        known = [field.name for field in fields(Config)]
        tables = self.root.list("sizes", {})
        result = []
        for number, table in enumerate(tables, 1):
            place = f"{self.path}, [sizes]" + (f" number {number}" if len(tables) > 1 else "")
            section = Section(place, table)
            if unknown := [name for name in section.table if name not in known]:
                names = ", ".join(known)
                section.fail(unknown[0], f"is no size of an accelerator; there are {names}")
            result.append({name: self._integers(section, name) for name in section.table})
        return result

    @staticmethod
    def _integers(section: Section, name: str) -> list[int]:
        values = section.list(name)
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int):
                section.fail(name, f"must be an integer or a list of them; it has {value!r}")
        return values

    def _workloads(self, *, needed: bool) -> list[Workload]:
        tables = self.root.raw("workloads", [])
        if not isinstance(tables, list):
            self.root.fail("workloads", "must be tables, each headed [[workloads]]")
        if not tables and (needed or self.root.has("workloads")):
            self.root.fail("workloads", "is empty: add one under [[workloads]]")
        workloads: list[Workload] = []
        for number, table in enumerate(tables, 1):
            place = f"{self.path}, [[workloads]] number {number}"
            workload = read_workload(Section(place, table), self._locate)
            if any(workload.name == other.name for other in workloads):
                raise ConfigError(
                    f"{place}: there is another {workload.name!r}; give one of them another name"
                )
            workloads.append(workload)
        return workloads

    def _texts(self) -> Texts:
        section = self._section("accuracy")
        path = self._locate(section.text("checkpoint"))
        limit = section.integer("limit") if section.has("limit") else None
        length = section.integer("length") if section.has("length") else None
        text = self.path.parent / section.text("text")
        for key in ("limit", "length"):
            section.raw(key)
        section.finish()
        checkpoint = Checkpoint.at(path)
        tokens = read_texts(text, checkpoint.load(), limit=limit, length=length)
        return Texts(checkpoint=checkpoint, texts=tuple(map(tuple, tokens)))

    def _locate(self, name: str) -> Path:
        """A checkpoint: beside the space file, or where the other commands find it."""
        beside = self.path.parent / name
        return beside if beside.exists() else locate(Path(name))

    def _objectives(
        self, scores: Sequence[str], workloads: Sequence[Workload], texts: Texts | None
    ) -> tuple[str, ...]:
        errors = "accuracy" in scores
        possible = [
            *["cycles"] * ("cycles" in scores),
            *KINDS * ("area" in scores),
            "macs",
            "memory_bits",
            *["error"] * (errors and bool(workloads)),
            *["loss"] * (texts is not None),
        ]
        usual = ("cycles", *(("lut", "dsp") if "area" in scores else ("macs",)), "error", "loss")
        default = [name for name in usual if name in possible]
        return self.root.choices("pareto", possible, default)


def _candidates(presets: Sequence[str], tables: Sequence[dict[str, list[int]]]) -> list[Candidate]:
    """All combinations, each accelerator once."""
    found: dict[tuple[int, ...], Candidate] = {}
    for name, table in product(presets, tables):
        base = preset(name)
        for values in product(*table.values()):
            changes = dict(zip(table, values, strict=True))
            sizes = base.to_dict() | changes
            candidate = Candidate(preset=name, sizes=sizes, config=None)
            try:
                candidate = replace(candidate, config=base.with_(**changes))
            except ConfigError as error:
                candidate = replace(candidate, reason=str(error))
            found.setdefault(tuple(sizes.values()), candidate)
    return list(found.values())
