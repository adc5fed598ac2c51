# SPDX-License-Identifier: Apache-2.0
"""Hardware of the MX block format."""

from hdl.mx.quantizer import MXQuantizer, element_layout, float_element

__all__ = ["MXQuantizer", "element_layout", "float_element"]
