# SPDX-License-Identifier: Apache-2.0
"""cocotb benches, one a component, and what they share."""
