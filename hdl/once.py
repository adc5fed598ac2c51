# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: Apache-2.0
"""Components that are elaborated once, however many there are of them.

Amaranth elaborates every instance of a component for itself, which takes most of
the time that an array of thousands takes.  ``once(FloatAdd, fraction_bits=15)``
is used like ``FloatAdd(fraction_bits=15)`` and becomes an instance of a module
that `convert_all` makes once for each set of arguments.
"""

import gc
import re
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from amaranth.hdl import ClockSignal, Elaboratable, Instance, ResetSignal, Value, ValueCastable
from amaranth.lib import wiring

from hdl.rtlil import Modules, PortDirection, convert, flat_ports

P = ParamSpec("P")
T = TypeVar("T")

_PREFIX = "once"
_CELL = re.compile(r"^  cell \\(\S+) ", re.MULTILINE)


class Shared:
    """What all instances of one component with the same arguments share.

    Attributes
    ----------
    name : what RTLIL calls its module, unique in this process.
    component : one of them; its `latency` and the like are those of all.
    make : what makes `modules`, once somebody wants them.
    """

    made = 0
    """How many there were in this process, which is in their names."""

    def __init__(self, component: wiring.Component) -> None:
        Shared.made += 1
        self.name = f"{_PREFIX}{Shared.made}.{type(component).__name__}"
        self.component = component
        self.make: Callable[[], Modules] = partial(convert, component, name=self.name, clocked=True)
        self._modules: Modules | None = None

    @property
    def is_made(self) -> bool:
        return self._modules is not None

    @property
    def modules(self) -> Modules:
        """The module, and those below it that no other shares."""
        if self._modules is None:
            self._modules = self.make()
        return self._modules


# By component and arguments, as long as there are instances.
_shared: WeakValueDictionary[Any, Shared] = WeakValueDictionary()
# By name, once an instance was elaborated.
_elaborated: dict[str, Shared] = {}


class Once(wiring.Component):
    """An instance; made by `once`.  It has the component's members and public constants."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared.component.signature)
        self._shared = shared

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{name} of a component that is elaborated once")
        value = getattr(self._shared.component, name)
        if isinstance(value, (Value, ValueCastable, wiring.PureInterface, Elaboratable)):
            raise AttributeError(f"{name} is inside a module of its own")
        return value

    def elaborate(self, platform: object) -> Instance:
        shared = self._shared
        _elaborated[shared.name] = shared
        # A module needs nothing of the domain but its clock and reset.
        ports = {"i_clk": ClockSignal(), "i_rst": ResetSignal(allow_reset_less=True)}
        for name, (value, direction) in flat_ports(self).items():
            if len(value):
                ports[f"{'i' if direction == PortDirection.Input else 'o'}_{name}"] = value
        return Instance(shared.name, **ports)


def once(component: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """A component that shares its module with all others of the same arguments.

    Parameters
    ----------
    component
        The class.  What it elaborates to must depend on nothing but the arguments, and all of it
        must be in the domain ``sync``.
    kwargs
        Its arguments, hashable and compared by value.
    """
    if args:
        raise TypeError("arguments must be keywords")
    return Once(share(component, kwargs))


def share(component: Callable[..., Any], arguments: dict[str, Any]) -> Shared:
    """What the instances of `once` with these arguments share."""
    # 1, 1.0 and True are equal but not the same argument.
    key = (component, *((name, type(value), value) for name, value in sorted(arguments.items())))
    shared = _shared.get(key)
    if shared is None:
        _shared[key] = shared = Shared(component(**arguments))
    return shared


def convert_all(component: wiring.Component, *, name: str, clocked: bool = False) -> Modules:
    """As `hdl.rtlil.convert`, with what is made once."""
    collecting = gc.isenabled()
    gc.disable()  # 40 % faster on a large array: millions of objects, next to none of them garbage
    try:
        found: Modules = {}
        waiting = [convert(component, name=name, clocked=clocked)]
        while waiting:
            new = waiting.pop()
            found |= new
            # Several may want the same module: it is looked through again, to the same end.
            wanted = {cell[1] for body in new.values() for cell in _CELL.finditer(body)}
            shared = (_elaborated.get(module) for module in sorted(wanted - found.keys()))
            waiting += [each.modules for each in shared if each is not None]
        return found
    finally:
        if collecting:
            gc.enable()


def plain_name(module: str, *, top: str) -> str:
    """The RTLIL name `module` without what differs from process to process."""
    head, dot, rest = module.partition(".")
    is_once = dot and head.startswith(_PREFIX) and head[len(_PREFIX) :].isdecimal()
    return f"{top}.{rest}" if is_once else module
