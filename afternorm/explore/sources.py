# SPDX-License-Identifier: Apache-2.0
"""Hashes of the project's own sources: a result is that of the code that computed it."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from afternorm.errors import ToolError

PACKAGES = ("afternorm", "golden", "hdl")
_MODELS = ("afternorm.explore.workloads", "afternorm.accuracy", "afternorm.cycles")
"""Where compiler, cycle model and golden machine are called."""


@cache
def model_sources() -> str:
    """The hash of what decides cycles and accuracy: modules that import each other from there on.

    Imports within functions do not count; they are of simulators and RTL.
    """
    files: dict[str, Path] = {}
    waiting = list(_MODELS)
    while waiting:
        name = waiting.pop()
        file = _file(name)
        if file is None or name in files:
            continue
        files[name] = file
        waiting += [parent for parent in _parents(name) if parent not in files]
        waiting += _imports(file)
    return _hash(files.items())


@cache
def all_sources() -> str:
    """The hash of everything, which may decide the RTL."""
    files = []
    for package in PACKAGES:
        for file in sorted(_folder(package).rglob("*.py")):
            files.append((file.relative_to(_folder(package).parent).as_posix(), file))
    return _hash(files)


def _imports(file: Path) -> Iterator[str]:
    """Names that may be modules."""
    for node in ast.parse(file.read_bytes()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _parents(name: str) -> Iterator[str]:
    parts = name.split(".")[:-1]
    yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _file(name: str) -> Path | None:
    """A module's file; None if it is no module of the project."""
    package, *parts = name.split(".")
    if package not in PACKAGES:
        return None
    path = _folder(package).joinpath(*parts)
    for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
        if file.is_file():
            return file
    return None


@cache
def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ToolError(f"there is no package {package}: install afternorm again")
    return Path(next(iter(spec.submodule_search_locations)))


def _hash(files: Iterable[tuple[str, Path]]) -> str:
    parts = sha256()
    for name, file in sorted(files):
        parts.update(f"{name}\0".encode())
        parts.update(file.read_bytes())
    return parts.hexdigest()[:24]
