# SPDX-License-Identifier: Apache-2.0
"""What goes with the Verilog: waivers of lint warnings, FuseSoC core, C header, register page."""
