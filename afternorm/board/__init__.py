# SPDX-License-Identifier: Apache-2.0
"""Boards: how the accelerator on one is reached, and how its bitstream is made."""
