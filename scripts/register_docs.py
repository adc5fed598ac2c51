# SPDX-License-Identifier: Apache-2.0
"""Writes docs/registers.md from `afternorm.register_map`.

Run it after a change of the registers: python scripts/register_docs.py
"""

from pathlib import Path

from afternorm.package.register_page import register_page

PAGE = Path(__file__).parents[1] / "docs" / "registers.md"

if __name__ == "__main__":
    PAGE.write_text(register_page(), encoding="utf-8")
