# SPDX-License-Identifier: Apache-2.0
"""From transformer layers to programs of the accelerator."""
