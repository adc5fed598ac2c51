# SPDX-License-Identifier: Apache-2.0
"""The ports of AXI4 and AXI4-Lite, named so that tools recognize the interfaces.

Names are flat (`m_axi_awaddr`), as vendors' tools expect.  Signals that AXI
makes optional and that would never change here are left out: locks, quality of
service, regions and user bits.
"""

from amaranth.lib.wiring import In, Out

from afternorm.config import Config
from afternorm.isa import DRAM_ADDRESS
from afternorm.memory_map import REGISTER_BITS
from afternorm.register_map import OFFSET_BITS

MASTER = "m_axi_"
LITE = "s_axil_"

ID_BITS = 1
"""The only ID is 0: everything is in order."""
PAGE_BITS = 12
"""A burst stays within 4 KiB."""
LENGTH_BITS = 8
"""A burst has 1 to 256 beats, and says one less."""

INCREMENTING = 1
"""The kind of every burst."""
CACHE = 0b0011
"""Normal memory, bufferable, not cacheable."""
PROTECTION = 0
"""Unprivileged, secure, data."""

OKAY, SLVERR = 0, 2
ERROR_BIT = 1
"""Of a response: SLVERR or DECERR."""


def master_members(config: Config) -> dict:
    """The ports of the AXI4 master: beats of `dram_width` bits."""
    width = config.dram_width
    address = {
        "id": Out(ID_BITS),
        "addr": Out(DRAM_ADDRESS),
        "len": Out(LENGTH_BITS),
        "size": Out(3),
        "burst": Out(2),
        "cache": Out(4),
        "prot": Out(3),
        "valid": Out(1),
        "ready": In(1),
    }
    members = {f"aw{name}": member for name, member in address.items()}
    members |= {
        "wdata": Out(width),
        "wstrb": Out(width // 8),
        "wlast": Out(1),
        "wvalid": Out(1),
        "wready": In(1),
        "bid": In(ID_BITS),
        "bresp": In(2),
        "bvalid": In(1),
        "bready": Out(1),
    }
    members |= {f"ar{name}": member for name, member in address.items()}
    members |= {
        "rid": In(ID_BITS),
        "rdata": In(width),
        "rresp": In(2),
        "rlast": In(1),
        "rvalid": In(1),
        "rready": Out(1),
    }
    return {f"{MASTER}{name}": member for name, member in members.items()}


def lite_members() -> dict:
    """The ports of the AXI4-Lite subordinate: 32 bits, a page of offsets."""
    members = {
        "awaddr": In(OFFSET_BITS),
        "awprot": In(3),
        "awvalid": In(1),
        "awready": Out(1),
        "wdata": In(REGISTER_BITS),
        "wstrb": In(REGISTER_BITS // 8),
        "wvalid": In(1),
        "wready": Out(1),
        "bresp": Out(2),
        "bvalid": Out(1),
        "bready": In(1),
        "araddr": In(OFFSET_BITS),
        "arprot": In(3),
        "arvalid": In(1),
        "arready": Out(1),
        "rdata": Out(REGISTER_BITS),
        "rresp": Out(2),
        "rvalid": Out(1),
        "rready": In(1),
    }
    return {f"{LITE}{name}": member for name, member in members.items()}
