# SPDX-License-Identifier: Apache-2.0
"""What all tests share."""

import os
import random

import pytest


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


def _seed() -> int:
    # In the environment, so that the workers of pytest-xdist have the same.
    return int(os.environ.setdefault("AFTERNORM_SEED", str(random.SystemRandom().getrandbits(31))))
