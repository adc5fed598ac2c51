# SPDX-License-Identifier: Apache-2.0
"""The RTL of the accelerator, in Amaranth: one component a file, grouped by engine."""
