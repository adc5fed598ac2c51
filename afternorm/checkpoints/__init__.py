# SPDX-License-Identifier: Apache-2.0
"""Models and layers to compile: from checkpoints, or made from a seed."""

import os
from pathlib import Path

from afternorm.checkpoints.huggingface import load_folder
from afternorm.checkpoints.layer import (
    ARCHS,
    Arch,
    Floats,
    Layer,
    seeded_input,
    seeded_layer,
)
from afternorm.checkpoints.llama2c import load_file
from afternorm.checkpoints.model import Model, Tokenizer, seeded_model
from afternorm.errors import CheckpointError
from afternorm.models import ADDER

__all__ = [
    "ARCHS",
    "MODELS_VARIABLE",
    "Arch",
    "Floats",
    "Layer",
    "Model",
    "Tokenizer",
    "find_checkpoint",
    "load_model",
    "locate",
    "seeded_input",
    "seeded_layer",
    "seeded_model",
]

MODELS_VARIABLE = "AFTERNORM_MODELS"
"""Environment variable that names a folder of checkpoints."""


def load_model(path: Path, tokenizer: Path | None = None) -> Model:
    """Read a checkpoint: a Hugging Face folder with a config.json, or a file of llama2.c.

    Parameters
    ----------
    tokenizer
        Its tokenizer, if it does not lie where it is looked for: in the folder as
        `tokenizer.json`; beside the file as `tokN.bin` with N tokens, or as `tokenizer.bin`,
        if that one has as many tokens as the model.  A model without any can be run on tokens,
        not on texts.

    Raises
    ------
    CheckpointError
        If a file cannot be read, is truncated or of another kind, or has options, shapes or
        values that cannot be used.
    """
    if path.is_dir():
        return load_folder(path, tokenizer)
    if not path.exists():
        raise CheckpointError(f"cannot read {path}: there is no such file or folder")
    return load_file(path, tokenizer)


def locate(path: Path) -> Path:
    """Where a checkpoint lies that the user calls `path`.

    What there is comes first, then what the folder that `AFTERNORM_MODELS` names has of that
    name, then, as ``adder``, the model that comes with the package.
    """
    folder = os.environ.get(MODELS_VARIABLE)
    if not path.exists() and folder and (Path(folder) / path).exists():
        return Path(folder) / path
    return ADDER if not path.exists() and str(path) == ADDER.name else path


def find_checkpoint(name: str) -> Path | None:
    """A file in the folder that `AFTERNORM_MODELS` names, if there is one."""
    folder = os.environ.get(MODELS_VARIABLE)
    path = Path(folder) / name if folder else None
    return path if path is not None and path.is_file() else None
