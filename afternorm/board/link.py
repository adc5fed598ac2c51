# SPDX-License-Identifier: Apache-2.0
"""The host's side of a board: requests over a serial port, repeated until they are answered."""

import time

import numpy as np

from afternorm.board.boards import BOARDS, DEFAULT_BOARD
from afternorm.board.memory import BoardMemory
from afternorm.board.protocol import (
    ANSWER,
    HEADER,
    MAX_PAYLOAD,
    REGISTERS_BASE,
    Command,
    Frame,
    FrameDecoder,
)
from afternorm.config import Config
from afternorm.device import Closing, Device
from afternorm.driver.python import Driver
from afternorm.errors import AfternormError, ToolError
from afternorm.job import DATA
from afternorm.memory_map import REGISTERS, Status
from afternorm.register_map import REGISTER_BYTES
from afternorm.results import Run, run_fields

BITS_PER_BYTE = 10
"""On the line, with start and stop bit."""


class LinkError(AfternormError):
    """The board does not answer, or is gone."""


class SerialLink(Closing):
    """DRAM and registers of a board, over a serial port; a context manager that closes it.

    Every request is repeated until its answer comes whole; see `afternorm.board.protocol`
    for why that does nothing twice.

    Parameters
    ----------
    port
        The serial port, such as ``/dev/ttyUSB0``.
    baud
        Of the board.
    timeout
        Seconds without an answer until a request is repeated, beside the time on the line.
    attempts
        Of a request, before the board is given up.
    payload
        Bytes of a frame, at most.

    Attributes
    ----------
    repeated : requests that had to be repeated, counted as often.

    Raises
    ------
    LinkError
        Here and in all methods: if the port cannot be used, or the board does not answer.
    ToolError
        If pyserial is not installed.
    """

    def __init__(
        self,
        port: str,
        *,
        baud: int,
        timeout: float = 0.25,
        attempts: int = 20,
        payload: int = MAX_PAYLOAD,
    ) -> None:
        try:
            import serial
        except ImportError as error:
            raise ToolError(
                "the link to a board needs pyserial: run `pip install pyserial`"
            ) from error
        if not 0 < payload <= MAX_PAYLOAD:
            raise AfternormError(f"a frame carries 1 to {MAX_PAYLOAD} bytes, not {payload}")
        self.port, self.baud, self.timeout = port, baud, timeout
        self.attempts, self.payload = attempts, payload
        self.repeated = 0
        self._broken = (serial.SerialException, OSError)
        try:
            self._serial = serial.Serial(port, baud, timeout=timeout, exclusive=True)
        except (*self._broken, ValueError) as error:
            raise LinkError(f"--port {port}: {error}") from error
        self._decoder = FrameDecoder()
        self._number = 0
        try:
            self._request(Command.SYNC, 0, 0)
        except BaseException:
            self.close()
            raise

    def read(self, address: int, count: int) -> bytes:
        """`count` bytes from `address` on."""
        data = bytearray()
        while len(data) < count:
            part = min(self.payload, count - len(data))
            data += self._request(Command.READ, address + len(data), part)
        return bytes(data)

    def write(self, address: int, data: bytes) -> None:
        """Put `data` from `address` on."""
        for first in range(0, len(data), self.payload):
            part = data[first : first + self.payload]
            self._request(Command.WRITE, address + first, len(part), part)

    def read32(self, offset: int) -> int:
        """The register at this byte offset."""
        return int.from_bytes(self.read(REGISTERS_BASE + offset, REGISTER_BYTES), "little")

    def write32(self, offset: int, value: int) -> None:
        """Write the register at this byte offset."""
        self.write(REGISTERS_BASE + offset, value.to_bytes(REGISTER_BYTES, "little"))

    def close(self) -> None:
        """Free the port."""
        self._serial.close()

    def _request(self, command: Command, address: int, count: int, payload: bytes = b"") -> bytes:
        """Send a request until it is answered; what the answer carries."""
        self._number = (self._number + 1) % 256
        request = Frame(command, self._number, count, address, payload)
        answer = Frame(command | ANSWER, self._number, count, address)
        expected = count if command == Command.READ else 0
        line = request.encode()
        bytes_on_line = len(line) + 2 * (HEADER.size + expected)
        patience = self.timeout + bytes_on_line * BITS_PER_BYTE / self.baud
        try:
            for attempt in range(self.attempts):
                self.repeated += attempt > 0
                self._serial.write(line)
                found = self._answer(answer, expected, time.monotonic() + patience)
                if found is not None:
                    return found
        except self._broken as error:
            raise LinkError(f"the board at {self.port} is gone: {error}") from error
        raise LinkError(
            f"the board at {self.port} does not answer ({self.attempts} attempts, "
            f"{patience:.2g} s each, {self.baud} baud): load its bitstream, or name another port"
        )

    def _answer(self, answer: Frame, expected: int, end: float) -> bytes | None:
        """What the answer carries; None if it has not come at time `end`."""
        while (left := end - time.monotonic()) > 0:
            self._serial.timeout = left
            data = self._serial.read(max(1, self._serial.in_waiting))
            for frame in self._decoder.feed(data):
                header = Frame(frame.command, frame.number, frame.count, frame.address)
                if header == answer and len(frame.payload) == expected:
                    return frame.payload
        return None


class UartDevice(Device):
    """An accelerator on a board, behind a UART.

    Parameters
    ----------
    config
        The machine on the board.
    link
        The way to it; closed with the device.
    memory
        The board's memory.
    image
        What lies in DRAM from byte 0 on; only what lies in the memory's windows is written, and
        of the programs' window only what is not zero.

    Raises
    ------
    LinkError
        Here and in all methods: if the board does not answer.
    DeviceError
        If another machine is on the board.
    CapacityError
        Here and in all methods: if bytes are not in the board's memory.
    """

    def __init__(
        self,
        config: Config,
        link: SerialLink,
        *,
        memory: BoardMemory = BOARDS[DEFAULT_BOARD].memory,
        image: bytes = b"",
    ) -> None:
        self.config, self.link, self.memory = config, link, memory
        self.driver = Driver(link, config)
        # Whatever the last user left running, or in error.
        self.driver.soft_reset(timeout=None)
        programs, data = image[:DATA].rstrip(b"\0"), image[DATA:]
        if programs:
            self.write(0, programs)
        if data:
            self.write(DATA, data)

    def write(self, address: int, data: bytes) -> None:
        """As in `Device`."""
        self.memory.check(address, len(data))
        self.link.write(address, data)

    def read(self, address: int, count: int) -> bytes:
        """As in `Device`."""
        self.memory.check(address, count)
        return self.link.read(address, count)

    def run(self, program: int) -> Run:
        """As in `Device`."""
        self.driver.start(program)
        while (status := self.driver.status()) == Status.RUNNING:
            pass
        words = self.link.read(REGISTERS_BASE, REGISTERS * REGISTER_BYTES)
        if status == Status.ERROR:
            self.driver.soft_reset(timeout=None)
        return Run(**run_fields(np.frombuffer(words, dtype="<u4").astype(np.uint32)))

    def close(self) -> None:
        """As in `Device`."""
        self.link.close()


def open_board(
    config: Config, image: bytes, port: str, *, board: str = DEFAULT_BOARD
) -> UartDevice:
    """The machine of `config` on the board at a serial port, its DRAM loaded with `image`.

    Raises
    ------
    CapacityError
        If the image is larger than the board's memory; the port is not touched then.
    LinkError, DeviceError, ToolError
        As `SerialLink` and `UartDevice`.
    """
    its = BOARDS[board]
    its.memory.check(DATA, max(0, len(image) - DATA))
    link = SerialLink(port, baud=its.baud)
    try:
        return UartDevice(config, link, memory=its.memory, image=image)
    except BaseException:
        link.close()
        raise
