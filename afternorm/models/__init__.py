# SPDX-License-Identifier: Apache-2.0
"""Models that come with the project."""

from pathlib import Path

ADDER = Path(__file__).parent / "adder"
"""A small decoder that adds two numbers: `27+48=` gives `75` (scripts/train_adder.py)."""
