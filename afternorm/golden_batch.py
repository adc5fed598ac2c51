# SPDX-License-Identifier: Apache-2.0
"""A compiled model on many golden machines side by side, a text each.

The same programs run on all of them at once (`golden.machine.Machine`'s `batch`), so that a
machine's bits are those that it has alone.
"""

from collections.abc import Sequence

import numpy as np

from afternorm.checkpoints.model import check_ids
from afternorm.compiler.buffers import Floats
from afternorm.compiler.model import ModelCompiler, ModelProgram
from afternorm.config import Config
from afternorm.errors import CheckpointError
from afternorm.isa import Flag
from afternorm.memory_map import float_slot
from golden.machine import Machine


class GoldenBatch:
    """A model on so many golden machines; decoders step as `afternorm.checkpoints.decoder.Decoder`.

    Parameters
    ----------
    compiler : the model, compiled.
    batch : machines.

    Attributes
    ----------
    position : decoders: of the next tokens.

    Raises
    ------
    CapacityError
        By `step` and `features`, if the compiler made no room for so many tokens.
    CheckpointError
        By them, if there is not a token, or text, a machine, or a token is unknown.
    """

    def __init__(self, compiler: ModelCompiler, batch: int) -> None:
        self.compiler, self.batch = compiler, batch
        self.position = 0
        image = np.frombuffer(compiler.image(), dtype=np.uint8)
        self._machine = Machine(compiler.config, dram=len(image), batch=batch)
        self._machine.dram[:] = image
        self._machine.run(compiler.prologue().instructions)

    @staticmethod
    def machine_bytes(compiler: ModelCompiler) -> int:
        """The most memory that a machine takes here."""
        c: Config = compiler.config
        rows = 16 * (c.scale_depth + c.stat_depth)
        floats = 8 * (c.vector_depth * c.lanes + c.acc_banks * c.rows_max * c.acc_width)
        blocks = c.scratchpad_depth * (c.block + 2)
        return c.tiles * (rows + floats + blocks) + compiler.dram_bytes

    @property
    def flags(self) -> list[str]:
        """Names of the sticky flags that any machine has raised."""
        return [flag.name.lower() for flag in Flag if self._machine.flags >> flag & 1]

    def step(self, tokens: Sequence[int]) -> Floats:
        """Decoders: read each text's next token: ``[batch, vocabulary]`` logits of the one after.

        All texts are at the same position.
        """
        model = self.compiler.model
        self._check(len(tokens))
        check_ids(tokens, model.vocabulary)
        program = self.compiler.step(self.position)
        x = model.embedding[list(tokens)]
        if model.positions is not None:
            x = x + model.positions[self.position]
        self.position += 1
        return self._run(program, x[:, None])[:, 0]

    def features(self, texts: Sequence[Sequence[int]]) -> Floats:
        """Encoders: features after the last normalization, ``[batch, token, dim]``.

        All texts have the same length.
        """
        self._check(len(texts))
        x = np.stack([self.compiler.model.embed(text) for text in texts])
        return self._run(self.compiler.encode(x.shape[1]), x)

    def _check(self, count: int) -> None:
        if count != self.batch:
            raise CheckpointError(f"{count} texts for {self.batch} machines")

    def _run(self, program: ModelProgram, x: Floats) -> Floats:
        """Outputs ``[batch, row, feature]`` from inputs ``[batch, row, dim]``."""
        compiler, dram = self.compiler, self._machine.dram
        # A tile's part of all rows is the machines' parts one after the other.
        places, parts = compiler.input(x[0]), compiler.input(x.reshape(-1, x.shape[2]))
        for (address, single), (_, data) in zip(places, parts, strict=True):
            rows = np.frombuffer(data, dtype=np.uint8).reshape(self.batch, -1)
            dram[:, address : address + len(single)] = rows
        self._machine.run(program.instructions)
        slot = f"<u{float_slot(compiler.config) // 8}"
        spread = compiler.last.spread
        outputs = [dram[:, at : at + size].copy() for at, size in compiler.output_ranges(program)]
        bits = np.stack([output.view(slot) for output in outputs])
        values = compiler.b.fmt.decode(bits).reshape(len(outputs), -1, spread.width)
        features = spread.gather(values)
        return features.reshape(self.batch, -1, features.shape[1])
