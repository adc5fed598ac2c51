# SPDX-License-Identifier: Apache-2.0
"""AXI: a master towards DRAM, a subordinate for the registers, and a top level with both."""
