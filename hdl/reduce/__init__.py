# SPDX-License-Identifier: Apache-2.0
"""The reduce engine: row statistics, their sum over the tiles, and the row scales."""
