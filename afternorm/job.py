# SPDX-License-Identifier: Apache-2.0
"""A program with its data: what is loaded, run and read back, on golden machine and RTL alike."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from afternorm.addressing import Indices
from afternorm.compiler.accesses import Memory
from afternorm.config import Config
from afternorm.isa import Instruction

Floats = NDArray[np.float64]
ZERO_EXPONENT = -512
DATA = 1 << 20
"""Where a job's data begin in DRAM."""


@dataclass
class Image:
    """Memories of all tiles, shaped as the golden machine's.

    Attributes
    ----------
    mantissas, exponents : scratchpads, ``[tile, depth, block]`` and ``[tile, depth]``.
    vector : vector memories, ``[tile, depth, lanes]`` floats.
    """

    mantissas: NDArray[np.int8]
    exponents: NDArray[np.int16]
    vector: Floats

    @classmethod
    def empty(cls, config: Config, *, hollow: bool = False) -> "Image":
        """All blocks and numbers zero; `hollow`: to be read only, and in no memory."""
        c = config
        if hollow:
            return cls(
                np.broadcast_to(np.int8(0), (c.tiles, c.scratchpad_depth, c.block)),
                np.broadcast_to(np.int16(ZERO_EXPONENT), (c.tiles, c.scratchpad_depth)),
                np.broadcast_to(0.0, (c.tiles, c.vector_depth, c.lanes)),
            )
        return cls(
            np.zeros((c.tiles, c.scratchpad_depth, c.block), dtype=np.int8),
            np.full((c.tiles, c.scratchpad_depth), ZERO_EXPONENT, dtype=np.int16),
            np.zeros((c.tiles, c.vector_depth, c.lanes)),
        )


class Memories(Protocol):
    """Whatever has memories after a run: the golden machine, or what was read back."""

    @property
    def mantissas(self) -> NDArray[np.int8]:
        """As in `Image`."""

    @property
    def exponents(self) -> NDArray[np.int16]:
        """As in `Image`."""

    @property
    def vector(self) -> Floats:
        """As in `Image`."""


Assemble = Callable[[Memories], Floats]
"""Puts a result together from the memories."""


@dataclass
class Job:
    """One run of the accelerator.

    Attributes
    ----------
    config : the accelerator it is compiled for.
    program : its instructions, synchronized.
    image : what to load before it starts.
    loaded : the words of `image` that matter, by memory; the others are zero.
    written : the words that the program writes, by memory (the same in every tile).
    dram : what lies in DRAM from `DATA` on before the start; the program lies at 0.
    dram_written : what the program writes there: absolute byte addresses and counts.
    outputs : how to put named results together, as float64 arrays.
    info : what reports want to know, such as MACs, cycles of the padded products, sizes.
    """

    config: Config
    program: list[Instruction]
    image: Image
    loaded: dict[Memory, Indices]
    written: dict[Memory, Indices]
    dram: bytes = b""
    dram_written: list[tuple[int, int]] = field(default_factory=list)
    outputs: dict[str, Assemble] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    def load(self, machine: Memories) -> None:
        """Copy the image into a machine's memories."""
        machine.mantissas[:] = self.image.mantissas
        machine.exponents[:] = self.image.exponents
        machine.vector[:] = self.image.vector

    def results(self, machine: Memories) -> dict[str, Floats]:
        """All outputs, from the memories after the run."""
        return {name: assemble(machine) for name, assemble in self.outputs.items()}
