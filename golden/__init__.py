# SPDX-License-Identifier: Apache-2.0
"""Bit-exact numpy models of the accelerator, and the float64 references they are judged by."""
