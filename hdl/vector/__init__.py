# SPDX-License-Identifier: Apache-2.0
"""The vector engine: lanes of float arithmetic, table functions, and the walk over rows."""
