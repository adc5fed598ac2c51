# SPDX-License-Identifier: Apache-2.0
"""The golden machine as a device: the same bytes as the RTL's, and no cycles."""

import numpy as np

from afternorm.config import Config
from afternorm.device import Device
from afternorm.isa import Error
from afternorm.memory_map import REGISTERS, Register, Status
from afternorm.results import Run, run_fields
from golden.machine import Machine, MachineError


class GoldenDevice(Device):
    """The golden machine behind the interface of `afternorm.device.Device`.

    Parameters
    ----------
    config : the accelerator.
    image : what lies in DRAM from byte 0 on, and how large it is.
    """

    def __init__(self, config: Config, image: bytes) -> None:
        self.machine = Machine(config, dram=len(image))
        self.machine.dram[0] = np.frombuffer(image, dtype=np.uint8)

    def write(self, address: int, data: bytes) -> None:
        """As in `Device`."""
        self.machine.dram[0, address : address + len(data)] = np.frombuffer(data, dtype=np.uint8)

    def read(self, address: int, count: int) -> bytes:
        """As in `Device`."""
        return self.machine.dram[0, address : address + count].tobytes()

    def run(self, program: int) -> Run:
        """As in `Device`; of the registers, only status, error and flags are set."""
        registers = np.zeros(REGISTERS, dtype=np.uint32)
        registers[Register.STATUS] = Status.DONE
        self.machine.flags = 0
        try:
            self.machine.run(self.machine.program(program))
        except MachineError as error:
            registers[Register.STATUS] = Status.ERROR
            registers[Register.ERROR] = Error(error.code)
            registers[Register.ERROR_INDEX] = error.index
        registers[Register.FLAGS] = self.machine.flags
        return Run(**run_fields(registers))

    def close(self) -> None:
        """As in `Device`; nothing is held."""
