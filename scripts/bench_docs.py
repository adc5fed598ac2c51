# SPDX-License-Identifier: Apache-2.0
"""Runs the commands of docs/benchmarks.md and writes what they print beneath them.

Run it after a change of compiler, schedules or timing: python scripts/bench_docs.py
With arguments, only the commands that contain one of them: python scripts/bench_docs.py gemm
"""

import contextlib
import io
import re
import shlex
import sys
from pathlib import Path

from afternorm.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BLOCK = re.compile(r"^```console\n\$ (afternorm [^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """The page's commands."""
    return [match[1] for match in BLOCK.finditer(page)]


def output(command: str) -> str:
    """What a command prints, without spaces at the ends of lines."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = main(shlex.split(command)[1:])
    if status:
        raise SystemExit(f"{command} ended with status {status}")
    return "".join(f"{line.rstrip()}\n" for line in printed.getvalue().splitlines())


def updated(page: str, command: str, printed: str) -> str:
    """The page with what a command printed beneath it."""

    def block(match: re.Match[str]) -> str:
        return f"```console\n$ {command}\n{printed}```" if match[1] == command else match[0]

    return BLOCK.sub(block, page)


if __name__ == "__main__":
    for command in commands(PAGE.read_text(encoding="utf-8")):
        if len(sys.argv) == 1 or any(word in command for word in sys.argv[1:]):
            print(command, file=sys.stderr, flush=True)
            printed = output(command)  # meanwhile the page may have been edited
            PAGE.write_text(
                updated(PAGE.read_text(encoding="utf-8"), command, printed), encoding="utf-8"
            )
