# SPDX-License-Identifier: Apache-2.0
"""The exp engine: scores from the accumulators to MX blocks of ``2**score``."""
