# SPDX-License-Identifier: Apache-2.0
"""The frames between host and board, over any way that carries bytes.

A frame is a header (`HEADER`, little-endian), a payload, and the CRC-32 of both
(that of zlib and Ethernet).  On the line it lies between two `END` bytes, and
bytes in it that look like `END` or `ESC` are two bytes (SLIP, RFC 1055): after
any loss, the next `END` is where frames begin again.

The host sends a request and waits for its answer: the request's header with
`ANSWER` added to the command, and what was read.  What does not pass its CRC is
dropped on either side; the host repeats a request that is not answered, with
the same number.  A `WRITE` with the number of the request before is not done
again but answered again.  `SYNC` begins a session: it does nothing, and the
next request is new whatever its number.

An address counts bytes of DRAM; from `REGISTERS_BASE` on, those of the
registers, four each.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

END, ESC, ESC_END, ESC_ESC = 0xC0, 0xDB, 0xDC, 0xDD

HEADER = struct.Struct("<BBHI")
"""Command, number, bytes that are written or read, address."""
CRC = struct.Struct("<I")

ANSWER = 0x80
"""In the command of an answer."""
MAX_PAYLOAD = 1024
"""Bytes."""
REGISTERS_BASE = 1 << 31
"""Address of register 0."""


class Command(IntEnum):
    """What a request asks for."""

    SYNC = 0
    READ = 1
    WRITE = 2


@dataclass(frozen=True)
class Frame:
    """A request or an answer.

    Attributes
    ----------
    command : a `Command`, plus `ANSWER` in an answer.
    number : 0 to 255.
    count : bytes that are written or read.
    address : of the first of them.
    payload : the bytes, where the frame carries them.
    """

    command: int
    number: int
    count: int
    address: int
    payload: bytes = b""

    def encode(self) -> bytes:
        """The frame as it goes over the line."""
        header = HEADER.pack(self.command, self.number, self.count, self.address)
        body = header + self.payload
        body += CRC.pack(zlib.crc32(body))
        escaped = body.replace(bytes([ESC]), bytes([ESC, ESC_ESC]))
        escaped = escaped.replace(bytes([END]), bytes([ESC, ESC_END]))
        return bytes([END]) + escaped + bytes([END])


class FrameDecoder:
    """Finds frames in received bytes; what is not whole and right is dropped."""

    def __init__(self) -> None:
        self._body = bytearray()
        self._escaped = False
        self._lost = True  # whatever comes before the first END

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take up bytes; the frames that they complete."""
        for byte in data:
            if byte == END:
                frame = None if self._lost or self._escaped else _decoded(bytes(self._body))
                self._body.clear()
                self._escaped = self._lost = False
                if frame is not None:
                    yield frame
            elif self._escaped:
                self._escaped = False
                if byte in (ESC_END, ESC_ESC):
                    self._body.append(END if byte == ESC_END else ESC)
                else:
                    self._lost = True
            elif byte == ESC:
                self._escaped = True
            elif len(self._body) < HEADER.size + MAX_PAYLOAD + CRC.size:
                self._body.append(byte)
            else:
                self._lost = True


def _decoded(body: bytes) -> Frame | None:
    """The frame in unescaped bytes, if they are one."""
    payload = len(body) - HEADER.size - CRC.size
    if payload < 0:
        return None
    (crc,) = CRC.unpack(body[-CRC.size :])
    if zlib.crc32(body[: -CRC.size]) != crc:
        return None
    command, number, count, address = HEADER.unpack(body[: HEADER.size])
    return Frame(command, number, count, address, body[HEADER.size : -CRC.size])
