# SPDX-License-Identifier: Apache-2.0
"""The link's way to DRAM: a byte at a time."""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class BytesPort(wiring.Signature):
    """Bytes of DRAM, seen from who reads and writes them.

    Members
    -------
    valid, write, address, data : out. The request; holds until `ready`.
    ready : in. The request is accepted in this cycle.
    answered, answer : in. A pulse some cycles after an accepted read, and the byte.  No other
        request may be made before it.
    """

    def __init__(self):
        super().__init__(
            {
                "valid": Out(1),
                "write": Out(1),
                "address": Out(32),
                "data": Out(8),
                "ready": In(1),
                "answered": In(1),
                "answer": In(8),
            }
        )
