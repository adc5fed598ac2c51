# SPDX-License-Identifier: Apache-2.0
"""Runs a compiled model on a device: the host's part of inference."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from afternorm.compiler.buffers import Floats
from afternorm.compiler.model import ModelCompiler, ModelProgram
from afternorm.device import Device
from afternorm.errors import AfternormError
from afternorm.isa import INSTRUCTION_BYTES
from afternorm.memory_map import Status
from afternorm.results import Run


class InferenceError(AfternormError):
    """The accelerator stopped in the middle of a model."""


@dataclass(frozen=True)
class Done:
    """A program of a model that was run.

    Attributes
    ----------
    position, rows : the tokens that it computed; a batch's all have the same position.
    program : what ran.
    run : how it went.
    """

    position: int
    rows: int
    program: ModelProgram
    run: Run

    @property
    def dram_bytes(self) -> int:
        """Bytes of DRAM that were moved, instructions included."""
        return self.program.moved + len(self.program.instructions) * INSTRUCTION_BYTES


class Inference:
    """A model on a device.

    Parameters
    ----------
    compiler : the model, compiled for the device's accelerator.
    device : its DRAM holds ``compiler.image()``; what stays in the tiles is loaded at once.

    Attributes
    ----------
    position : decoders: tokens that the caches hold, of each sequence.
    prologue : the program that loaded the tiles, as it went.
    done : every program since.

    Raises
    ------
    InferenceError
        Here and in all methods: if a program stops with an error.
    """

    def __init__(self, compiler: ModelCompiler, device: Device) -> None:
        self.compiler, self.device = compiler, device
        self.position = 0
        self.done: list[Done] = []
        self.prologue = self._run(compiler.prologue(), 0)

    def restart(self) -> None:
        """Decoders: begin another text."""
        self.position = 0

    def feed(self, tokens: Sequence[int]) -> Floats:
        """Decoders: take up tokens; the logits of the last one, ``[vocabulary]``.

        As many as fit are taken at once, where a chunk begins.

        Raises
        ------
        CapacityError
            If the caches have no room for them; nothing is taken then.
        AfternormError
            If the model was compiled for a batch.
        """
        compiler, left = self.compiler, list(tokens)
        if compiler.batch > 1:
            raise AfternormError(
                f"the model was compiled for batch={compiler.batch}: feed_batch takes a token of "
                "each sequence"
            )
        compiler.check_room(self.position + len(left))
        logits = np.zeros(0)
        while left:
            rows = min(len(left), compiler.chunk) if self.position % compiler.chunk == 0 else 1
            x = compiler.model.embed(left[:rows], self.position)
            logits = self._compute(compiler.step(self.position, rows), x)[0]
            self.position += rows
            del left[:rows]
        return logits

    def feed_batch(self, tokens: Sequence[int]) -> Floats:
        """Decoders: take up a token of each sequence; all logits, ``[sequence, vocabulary]``.

        Sequences may differ in length: one whose text has ended takes what was made of it, or
        anything, while others still take theirs; rows do not depend on each other.

        Raises
        ------
        CapacityError
            If the caches have no room for them; nothing is taken then.
        AfternormError
            If these are not as many tokens as the model was compiled for.
        """
        compiler = self.compiler
        if len(tokens) != compiler.batch:
            raise AfternormError(
                f"{len(tokens)} tokens for a model compiled for batch={compiler.batch}: a step "
                "takes one of each sequence"
            )
        compiler.check_room(self.position + 1)
        x = np.concatenate([compiler.model.embed([token], self.position) for token in tokens])
        logits = self._compute(compiler.step(self.position), x)
        self.position += 1
        return logits

    def features(self, tokens: Sequence[int], rows: int | None = None) -> Floats:
        """Encoders: features after the last normalization, ``[tokens, dim]``.

        With `rows`, the text is padded to so many tokens, which are masked: the same bits.
        """
        length, rows = len(tokens), rows or len(tokens)
        x = self.compiler.model.embed(tokens)
        x = np.concatenate([x, np.zeros((rows - length, x.shape[1]))])
        return self._compute(self.compiler.encode(rows, length), x)[:length]

    def sentence(self, tokens: Sequence[int], rows: int | None = None) -> Floats:
        """Encoders: the embedding of a text, ``[dim]``."""
        return self.pool(self.features(tokens, rows))

    @staticmethod
    def pool(features: Floats) -> Floats:
        """The embedding from the features of all tokens: their mean, of length one."""
        mean = features.mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean))

    def _compute(self, program: ModelProgram, x: Floats) -> Floats:
        for address, data in self.compiler.input(x):
            self.device.write(address, data)
        self.done.append(self._run(program, self.position))
        ranges = self.compiler.output_ranges(program)
        return self.compiler.output(program, [self.device.read(*part) for part in ranges])

    def _run(self, program: ModelProgram, position: int) -> Done:
        self.device.write(0, program.words)
        run = self.device.run(0)
        if run.status != Status.DONE:
            raise InferenceError(
                f"the accelerator stopped at instruction {run.error_index} of the program for "
                f"position {position}: {run.error.name.lower()} error"
            )
        return Done(position, program.rows, program, run)
