# SPDX-License-Identifier: Apache-2.0
"""Files that are either whole or absent."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path


def write_file(path: Path, content: str | bytes) -> None:
    """Write `content` to `path`, under a temporary name that is renamed when all is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    scratch = Path(name)
    try:
        os.close(descriptor)
        scratch.write_bytes(content.encode() if isinstance(content, str) else content)
        scratch.chmod(0o666 & ~_umask())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_directory(directory: Path, files: Mapping[str, str]) -> None:
    """Write `files`, texts by name, into `directory`.

    A new directory appears with all its files at once.  In one that exists each
    file is replaced as a whole, and others are left alone.
    """
    if directory.exists():
        for name, text in files.items():
            write_file(directory / name, text)
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        scratch.chmod(0o777 & ~_umask())
        for name, text in files.items():
            (scratch / name).write_text(text, encoding="utf-8")
        scratch.rename(directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
