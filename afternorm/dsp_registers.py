# SPDX-License-Identifier: Apache-2.0
"""Moves registers behind multipliers into them, in a netlist of the ECP5.

A MULT18X18D has registers at its outputs that Yosys leaves unused: a product's register becomes
16 flip-flops around it, and twice as many wires where the array has the fewest to spare.  Those
that nothing else stands before, that are always enabled, start at zero and are never reset, are
the multiplier's own from here on.
"""

from collections import defaultdict
from typing import Any

_MULTIPLIER, _REGISTER = "MULT18X18D", "TRELLIS_FF"
_PLAIN = {"CLKMUX": "CLK", "CEMUX": "1", "REGSET": "RESET"}
"""Parameters of a register that a multiplier's output can be."""

Cell = dict[str, Any]


def absorb(module: dict[str, Any]) -> int:
    """Change a flat `module` of Yosys's JSON; gives how many registers are gone."""
    cells: dict[str, Cell] = module["cells"]
    ports = {bit for port in module["ports"].values() for bit in port["bits"]}
    readers: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for name, cell in cells.items():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "input":
                for bit in bits:
                    readers[bit].append((name, port))
    gone = 0
    for cell in [cell for cell in cells.values() if cell["type"] == _MULTIPLIER]:
        outputs = {
            port: bits[0]
            for port, bits in cell["connections"].items()
            if cell["port_directions"][port] == "output" and bits
        }
        used = {port: bit for port, bit in outputs.items() if readers[bit] or bit in ports}
        behind = {
            port: None if bit in ports else _register(cells, readers[bit])
            for port, bit in used.items()
        }
        registers = {port: name for port, name in behind.items() if name}
        clocks = {cells[name]["connections"]["CLK"][0] for name in registers.values()}
        if len(registers) < len(used) or len(clocks) != 1:
            continue
        cell["parameters"] |= {
            "REG_OUTPUT_CLK": "CLK0",
            "REG_OUTPUT_CE": "CE0",
            "REG_OUTPUT_RST": "RST0",
        }
        for port, bit in ("CLK0", clocks.pop()), ("CE0", "1"), ("RST0", "0"):
            cell["port_directions"][port] = "input"
            cell["connections"][port] = [bit]
        for port, name in registers.items():
            cell["connections"][port] = cells.pop(name)["connections"]["Q"]
        gone += len(registers)
    return gone


def _register(cells: dict[str, Cell], users: list[tuple[str, str]]) -> str | None:
    """The register that alone reads a bit, if it is one that a multiplier has."""
    (name, port), *others = users
    cell = cells[name]
    if others or cell["type"] != _REGISTER or port != "DI":
        return None
    parameters = {key: value.strip() for key, value in cell["parameters"].items()}
    plain = all(parameters.get(key) == value for key, value in _PLAIN.items())
    never_reset = cell["connections"].get("LSR", ["0"]) == ["0"]
    return name if plain and never_reset else None
