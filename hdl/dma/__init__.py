# SPDX-License-Identifier: Apache-2.0
"""The DRAM side: program fetch, LOAD and STORE, and what they share."""
