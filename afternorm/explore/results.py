# SPDX-License-Identifier: Apache-2.0
"""The folder of finished tasks: a file each, named by the hash of what it depends on."""

import json
from dataclasses import asdict
from pathlib import Path

from afternorm.errors import AfternormError
from afternorm.explore.tasks import Outcome, Task
from afternorm.files import write_file

KEPT = ("done", "impossible")
"""What would be the same another time."""


class Results:
    """Outcomes of tasks in a folder, which is made when the first one is kept.

    Raises
    ------
    AfternormError
        If there is a file of the folder's name.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise AfternormError(f"{folder} is no folder; name one with -o for the results")
        self.folder = folder

    def get(self, task: Task) -> Outcome | None:
        """What is known of a task; None if it is not done, or its file is no such file."""
        try:
            kept = json.loads(self._path(task).read_text(encoding="utf-8"))["outcome"]
            return Outcome(kept["status"], dict(kept["scores"]), kept["reason"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def put(self, task: Task, outcome: Outcome) -> None:
        """Keep an outcome, unless it may be different another time."""
        if outcome.status in KEPT:
            content = {"task": task.content(), "outcome": asdict(outcome)}
            write_file(self._path(task), json.dumps(content, indent=2) + "\n")

    def _path(self, task: Task) -> Path:
        return self.folder / f"{task.key}.json"
