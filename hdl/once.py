# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: Apache-2.0
"""Components that are elaborated once, however many there are of them.

Amaranth elaborates every instance of a component for itself, which takes most of
the time that an array of thousands takes.  ``once(FloatAdd, fraction_bits=15)``
is used like ``FloatAdd(fraction_bits=15)`` and becomes an instance of a module
that `hdl.verilog` makes once for each set of arguments.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from amaranth.hdl import ClockSignal, Elaboratable, Instance, ResetSignal, Value, ValueCastable
from amaranth.lib import wiring

from hdl.rtlil import PortDirection, convert, flat_ports

P = ParamSpec("P")
T = TypeVar("T")

_PREFIX = "once"


class Shared:
    """What all instances of one component with the same arguments share.

    Attributes
    ----------
    name : what RTLIL calls its module, unique in this process.
    component : one of them; its `latency` and the like are those of all.
    """

    _made = 0

    def __init__(self, component: wiring.Component) -> None:
        Shared._made += 1
        self.name = f"{_PREFIX}{Shared._made}.{type(component).__name__}"
        self.component = component

    @cached_property
    def text(self) -> str:
        """RTLIL of the module."""
        return convert(self.component, name=self.name, clocked=True)


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
    # 1, 1.0 and True are equal but not the same argument.
    key = (component, *((name, type(kwargs[name]), kwargs[name]) for name in sorted(kwargs)))
    shared = _shared.get(key)
    if shared is None:
        _shared[key] = shared = Shared(component(**kwargs))
    return Once(shared)


def find(name: str) -> Shared | None:
    """What instances of the RTLIL module `name` share, if it is one of this file's."""
    return _elaborated.get(name)


def plain_name(module: str, *, top: str) -> str:
    """The RTLIL name `module` without what differs from process to process."""
    head, dot, rest = module.partition(".")
    is_once = dot and head.startswith(_PREFIX) and head[len(_PREFIX) :].isdecimal()
    return f"{top}.{rest}" if is_once else module
