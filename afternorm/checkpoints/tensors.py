# SPDX-License-Identifier: Apache-2.0
"""Tensors by name from the safetensors files of a folder, checked as they are taken."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize

from afternorm.checkpoints.layer import Floats
from afternorm.errors import CheckpointError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def _bfloat16(data: bytes) -> Floats:
    # The upper half of a float32.
    wide = np.frombuffer(data, "<u2").astype(np.uint32) << 16
    return wide.view(np.float32).astype(np.float64)


_READERS: Mapping[str, Callable[[bytes], Floats]] = {
    "F64": lambda data: np.frombuffer(data, "<f8").astype(np.float64),
    "F32": lambda data: np.frombuffer(data, "<f4").astype(np.float64),
    "F16": lambda data: np.frombuffer(data, "<f2").astype(np.float64),
    "BF16": _bfloat16,
}


class Tensors:
    """The tensors of a folder: of `model.safetensors`, of the files that the index
    `model.safetensors.index.json` names, or of the only `*.safetensors` there is.

    Parameters
    ----------
    prefix : is removed from names that begin with it.

    Raises
    ------
    CheckpointError
        If there are no such files, one cannot be read, or a name is there twice.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder = folder
        self._entries: dict[str, Mapping[str, Any]] = {}
        self._taken: set[str] = set()
        for path in _files(folder):
            for name, entry in _read(path):
                short = name.removeprefix(prefix)
                if short in self._entries:
                    raise CheckpointError(f"{path}: tensor {name} is there twice")
                self._entries[short] = entry

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def rename(self, pattern: str, replacement: str) -> None:
        """Give tensors the names that `re.sub` makes of theirs."""
        self._entries = {re.sub(pattern, replacement, n): e for n, e in self._entries.items()}

    def take(self, name: str, shape: tuple[int, ...]) -> Floats:
        """A tensor in float64.

        Raises
        ------
        CheckpointError
            If it is not there, or has another shape, an unknown type, or values that are not
            finite.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise CheckpointError(f"{self.folder} has no tensor {name}")
        found = tuple(entry["shape"])
        if found != shape:
            raise CheckpointError(
                f"{self.folder}: {name} has shape {list(found)}; config.json asks for {list(shape)}"
            )
        reader = _READERS.get(entry["dtype"])
        if reader is None:
            raise CheckpointError(
                f"{self.folder}: {name} has type {entry['dtype']}; use {', '.join(_READERS)}"
            )
        tensor = reader(entry["data"]).reshape(shape)
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{self.folder}: {name} has values that are not finite")
        self._taken.add(name)
        return tensor

    def finish(self, ignored: Sequence[str]) -> None:
        """Check that nothing is left but what the patterns name.

        Raises
        ------
        CheckpointError
            If there is a tensor that nobody took: the model is not what config.json says.
        """
        for name in sorted(self._entries.keys() - self._taken):
            if not any(re.fullmatch(pattern, name) for pattern in ignored):
                raise CheckpointError(
                    f"{self.folder} has a tensor {name}, for which config.json has no use: "
                    f"this is another kind of model"
                )


def read_json(path: Path) -> dict[str, Any]:
    """An object in JSON.

    Raises
    ------
    CheckpointError
        If the file cannot be read or is something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return value


def _files(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        names = read_json(folder / INDEX).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise CheckpointError(f"{folder / INDEX} has no weight_map")
        for name in names.values():
            if not isinstance(name, str) or Path(name).name != name:
                raise CheckpointError(f"{folder / INDEX}: {name!r} is no name of a file beside it")
        return [folder / name for name in sorted(set(names.values()))]
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        raise CheckpointError(
            f"{folder} has {len(found)} files *.safetensors and neither {SINGLE} nor {INDEX}; "
            f"save the model with safetensors"
        )
    return found


def _read(path: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    try:
        entries: list[tuple[str, dict[str, Any]]] = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} ({len(data)} bytes) is truncated or no safetensors file: {error}"
        ) from error
    return entries
