# SPDX-License-Identifier: Apache-2.0
"""The memories of a tile."""
