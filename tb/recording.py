# SPDX-License-Identifier: Apache-2.0
"""What a host does with a device, kept, to be done again with another one."""

from dataclasses import dataclass, field

from afternorm.config import Config
from afternorm.golden_device import GoldenDevice
from afternorm.results import Run


@dataclass
class Recording:
    """What was done, and what came of it.

    Attributes
    ----------
    image : what lay in DRAM from byte 0 on.
    commands : in order, ``("write", address, data)``, ``("run", program, flags)`` and
        ``("read", address, data)``.
    """

    image: bytes
    commands: list[tuple] = field(default_factory=list)


class Recorder(GoldenDevice):
    """The golden machine as a device that keeps a `Recording`."""

    def __init__(self, config: Config, image: bytes):
        super().__init__(config, image)
        self.recording = Recording(image)

    def write(self, address: int, data: bytes) -> None:
        super().write(address, data)
        self.recording.commands.append(("write", address, bytes(data)))

    def read(self, address: int, count: int) -> bytes:
        data = super().read(address, count)
        self.recording.commands.append(("read", address, data))
        return data

    def run(self, program: int) -> Run:
        run = super().run(program)
        self.recording.commands.append(("run", program, run.flags))
        return run
