# SPDX-License-Identifier: Apache-2.0
"""A component's RTLIL, as `amaranth.back.rtlil.convert` makes it but for three things.

The text of a memory of zeros is without its contents, which would be longer than
all the rest: what reads a word first wrote it.  A module that is made once
for many instances has ports for clock and reset even if it uses none.  And it
takes two thirds of the time: no bit is checked for being one, and combinational
loops are looked for with less.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, Fragment, Value, _ir, _nir
from amaranth.hdl._ast import SignalDict
from amaranth.hdl._ir import PortDirection
from amaranth.hdl._nir import Net, Netlist, Part
from amaranth.lib import wiring

_MEMORY = re.compile(
    r"^ *attribute \\no_rw_check 1\n *memory width \d+ size \d+ \\(\S+)$", re.MULTILINE
)
_READ = re.compile(
    r'^ *cell \$memrd_v2 \S+\n *parameter \\MEMID "\\\\(?P<memory>\S+)"\n'
    r"(?: *parameter \\(?!COLLISION_X_MASK).*\n)* *parameter \\COLLISION_X_MASK \d+'(?P<mask>0+)$",
    re.MULTILINE,
)

_MODULE = re.compile(r"^module \\(\S+)\n(.*?)^end$", re.MULTILINE | re.DOTALL)
_ATTRIBUTE = re.compile(r"^ *attribute \\(?:generator|top|src|amaranth\.\w+) .*\n", re.MULTILINE)

Ports = dict[str, tuple[Value, PortDirection]]

Modules = dict[str, str]
"""The bodies of RTLIL modules, by name."""


class _ModuleEmitter(rtlil.ModuleEmitter):
    def emit_memory(self, cell_idx, cell):
        if any(cell.init):
            super().emit_memory(cell_idx, cell)


class _Selection:
    """A `Part` whose bits depend on the first of them, and this one on what each does."""

    def __init__(self, index, part):
        self.index = index
        self.part = part

    def output_nets(self, index):
        return self.part.output_nets(index)

    def comb_edges_to(self, bit):
        if bit == 0:
            return self.part.comb_edges_to(0)
        return ((Net.from_cell(self.index, 0), self.part.src_loc),)


class _Netlist(Netlist):
    def check_comb_cycles(self):
        """Goes through what a variable selects from once, not once for each bit of it: on large
        machines that is half of the check.
        """
        cells = self.cells
        self.cells = [
            _Selection(index, cell) if isinstance(cell, Part) else cell
            for index, cell in enumerate(cells)
        ]
        super().check_comb_cycles()
        self.cells = cells


def _new_bits(cls: type[_nir.Value], nets: Net | Iterable[Net] = ()) -> _nir.Value:
    return tuple.__new__(cls, (nets,) if isinstance(nets, Net) else nets)


def _get_bits(self: _nir.Value, index: int | slice) -> Net | _nir.Value:
    found = tuple.__getitem__(self, index)
    return tuple.__new__(_nir.Value, found) if isinstance(index, slice) else found


@contextmanager
def _unchecked_bits() -> Iterator[None]:
    """While the body runs, a netlist's values are made without asking each bit whether it is a
    `Net`, which Amaranth does whenever a value is cut or put together: a quarter of its time.
    """
    checked = _nir.Value.__new__, _nir.Value.__getitem__
    _nir.Value.__new__, _nir.Value.__getitem__ = _new_bits, _get_bits
    try:
        yield
    finally:
        _nir.Value.__new__, _nir.Value.__getitem__ = checked


def flat_ports(component: wiring.Component) -> Ports:
    """The ports of a component's signature, members of interfaces joined by ``__``."""
    directions = {wiring.In: PortDirection.Input, wiring.Out: PortDirection.Output}
    return {
        "__".join(map(str, path)): (Value.cast(value), directions[member.flow])
        for path, member, value in component.signature.flatten(component)
    }


@_unchecked_bits()
def convert(component: wiring.Component, *, name: str, clocked: bool = False) -> Modules:
    """`component`, as a module called `name`, and what is below it but for what is made once.

    Parameters
    ----------
    clocked
        Give the module the ports ``clk`` and ``rst``, whether it uses them or not.
    """
    fragment = Fragment.get(component, None)
    ports = flat_ports(component)
    if clocked:
        sync = ClockDomain("sync")
        fragment.add_domains(sync)
        clock = {"clk": (sync.clk, PortDirection.Input), "rst": (sync.rst, PortDirection.Input)}
        # An instance cannot connect a port of no bits.
        ports = clock | {port: its for port, its in ports.items() if len(its[0])}
    netlist = _netlist(fragment.prepare(ports=ports, hierarchy=(name,)))
    # From here on as in `amaranth.back.rtlil.convert_fragment`.
    empty = rtlil.EmptyModuleChecker(netlist)
    design = rtlil.Design(emit_src=False)
    for index, module in enumerate(netlist.modules):
        if not empty.is_empty(index):
            builder = design.module(".".join(module.name), src_loc=module.src_loc)
            _ModuleEmitter(builder, netlist, module, SignalDict(), empty_checker=empty).emit()
    return {match[1]: match[2] for match in _MODULE.finditer(_ATTRIBUTE.sub("", str(design)))}


def _netlist(design: _ir.Design) -> _Netlist:
    """As in `amaranth.hdl._ir.build_netlist`."""
    netlist = _Netlist()
    _ir._emit_netlist(netlist, design, all_undef_to_ff=False)
    netlist.check_comb_cycles()
    netlist.resolve_all_nets()
    _ir._compute_net_flows(netlist)
    _ir._compute_ports(netlist)
    _ir._compute_ionet_dirs(netlist)
    _ir._compute_io_ports(netlist, design.ports)
    return netlist


def ignore_collisions(design: str) -> str:
    """`design`, RTLIL text, with memories that may read anything in the cycle of a write to the
    word, if they have the attribute ``no_rw_check``.

    Yosys heeds the attribute only where it makes the read port itself; Amaranth's promise the old
    word, which costs a register and a multiplexer a bit beside many a block RAM.
    """

    def relax(module: re.Match[str]) -> str:
        loose = set(_MEMORY.findall(module[0]))

        def port(cell: re.Match[str]) -> str:
            if cell["memory"] not in loose:
                return cell[0]
            return cell[0][: -len(cell["mask"])] + "1" * len(cell["mask"])

        return _READ.sub(port, module[0]) if loose else module[0]

    return re.sub(r"^module .*?^end$", relax, design, flags=re.MULTILINE | re.DOTALL)
