# SPDX-License-Identifier: Apache-2.0
"""afternorm: accelerators whose normalization comes after the matrix product."""
