# SPDX-License-Identifier: Apache-2.0
"""The DRAM of a board without one: block RAM, in two windows of the address space.

Programs lie at 0 and data at `afternorm.job.DATA`, with nothing between them;
block RAM is there only for what is used of both.
"""

from dataclasses import dataclass

from afternorm.errors import AfternormError, CapacityError
from afternorm.job import DATA


@dataclass(frozen=True)
class BoardMemory:
    """The windows of a board's memory.

    Attributes
    ----------
    program : bytes from 0 on.
    data : bytes from `DATA` on, `DATA` bytes at most.
    """

    program: int
    data: int

    def __post_init__(self) -> None:
        for name, size in (("program", self.program), ("data", self.data)):
            if size % 64 or not 0 < size <= DATA:
                raise AfternormError(
                    f"the {name} window has 64 to {DATA} bytes, a multiple of 64, not {size}"
                )

    @property
    def size(self) -> int:
        """Bytes of both windows."""
        return self.program + self.data

    def check(self, address: int, count: int) -> None:
        """Raise a `CapacityError` unless these bytes are there."""
        for first, size in ((0, self.program), (DATA, self.data)):
            if first <= address and count >= 0 and address + count <= first + size:
                return
        raise CapacityError(
            f"{count} bytes at {address:#x} are not in the board's memory, {self.program} bytes "
            f"from 0 and {self.data} from {DATA:#x} on: take a smaller model or fewer tokens"
        )
