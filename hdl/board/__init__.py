# SPDX-License-Identifier: Apache-2.0
"""The accelerator on a board: its DRAM of block RAM, and the link to the host."""
