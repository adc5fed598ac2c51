# SPDX-License-Identifier: Apache-2.0
"""Writes the instruction table of docs/architecture.md from `afternorm.isa`.

Run it after a change of the instruction set: python scripts/isa_table.py
"""

from pathlib import Path

from afternorm.isa import BODIES, ENGINE_OF, HEADER, INSTRUCTION_BITS

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
BEGIN, END = "<!-- begin: scripts/isa_table.py -->\n", "<!-- end -->\n"


def table() -> str:
    """The table in Markdown: opcode, engine, bits in use, fields with their widths."""

    def fields(layout: tuple[tuple[str, int], ...]) -> str:
        return ", ".join(f"`{name}` {width}" for name, width in layout)

    header = sum(width for _, width in HEADER)
    lines = [
        "| opcode | engine | bits | fields, from the lowest bit, and their widths |",
        "|---|---|---|---|",
        f"| (header of each) | | {header} | {fields(HEADER)} |",
    ]
    for opcode, body in BODIES.items():
        engine = ENGINE_OF[opcode].name.lower() if opcode in ENGINE_OF else ""
        bits = header + sum(width for _, width in body)
        assert bits <= INSTRUCTION_BITS
        lines.append(f"| {int(opcode)} `{opcode.name}` | {engine} | {bits} | {fields(body)} |")
    return "\n".join(lines) + "\n"


def updated(page: str) -> str:
    """The page with the table as it should be."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
