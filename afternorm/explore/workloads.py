# SPDX-License-Identifier: Apache-2.0
"""What accelerators are scored on: single operations, layers, steps of a decoder.

A workload compiles to a program, which the cycle model runs; and it runs on the golden machine,
whose result is compared with float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from afternorm.checkpoints import ARCHS, Arch, Model, load_model, seeded_input, seeded_layer
from afternorm.checkpoints.decoder import Decoder
from afternorm.checkpoints.layer import Floats, Layer
from afternorm.compiler.kernels import compile_attention, compile_gemm, compile_norm_linear
from afternorm.compiler.layer import compile_layer
from afternorm.compiler.layer_weights import Schedule
from afternorm.compiler.model import ModelCompiler
from afternorm.config import Config
from afternorm.errors import CheckpointError
from afternorm.explore.section import Section
from afternorm.golden_batch import GoldenBatch
from afternorm.isa import Instruction
from afternorm.job import Job
from afternorm.simulation import run_golden

NORMS: tuple[Literal["rms", "layer"], ...] = ("rms", "layer")


@dataclass(frozen=True)
class Compiled:
    """A workload's program.

    Attributes
    ----------
    program : its instructions.
    macs : multiplications that it needs.
    ideal : array cycles of its padded products.
    """

    program: Sequence[Instruction]
    macs: int
    ideal: int


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model in a file or folder, and the hash of what is in there."""

    path: Path
    digest: str

    @classmethod
    def at(cls, path: Path) -> "Checkpoint":
        """The checkpoint that lies there.

        Raises
        ------
        CheckpointError
            If it cannot be read.
        """
        return cls(path=path.absolute(), digest=_digest(path))

    def load(self) -> Model:
        """The model; it is kept for those who ask next.

        Raises
        ------
        CheckpointError
            If it cannot be used, or is not the one that was hashed.
        """
        return _load(self)


def _digest(path: Path) -> str:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    parts = sha256()
    try:
        for file in files:
            if file.is_file() or not path.is_dir():
                with file.open("rb") as stream:
                    while piece := stream.read(1 << 20):
                        parts.update(piece)
                parts.update(f"\0{file.name}\0".encode())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    return parts.hexdigest()[:24]


@lru_cache(maxsize=2)
def _load(checkpoint: Checkpoint) -> Model:
    if _digest(checkpoint.path) != checkpoint.digest:
        raise CheckpointError(
            f"{checkpoint.path} is not the file that the sweep began with; start it again"
        )
    return load_model(checkpoint.path)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One program to score accelerators on.

    Attributes
    ----------
    name : what tables call it.
    count : how often it counts in the sum of cycles.
    scheduled : whether the schedule makes a difference.
    """

    kind: ClassVar[str]
    scheduled: ClassVar[bool] = True
    name: str
    count: int = 1

    def content(self) -> dict[str, Any]:
        """All that decides its results, for JSON."""
        content: dict[str, Any] = {"kind": self.kind}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Checkpoint):
                content[field.name] = value.digest
            elif field.name not in ("name", "count"):
                content[field.name] = value
        return content

    def compiled(self, config: Config, schedule: Schedule) -> Compiled:
        """The program.

        Raises
        ------
        CapacityError
            If it does not fit the accelerator.
        """
        raise NotImplementedError

    def error(self, config: Config, schedule: Schedule) -> float:
        """The golden machine's relative RMS error against float64; raises as `compiled`."""
        raise NotImplementedError


class JobWorkload(Workload):
    """A workload that is a job by itself, its operands in the tiles before it begins."""

    def job(self, config: Config, schedule: Schedule) -> tuple[Job, Floats]:
        """The job, and its output in float64."""
        raise NotImplementedError

    def compiled(self, config: Config, schedule: Schedule) -> Compiled:
        """As in `Workload`."""
        job, _ = self.job(config, schedule)
        return Compiled(job.program, int(job.info["macs"]), int(job.info["ideal"]))

    def error(self, config: Config, schedule: Schedule) -> float:
        """As in `Workload`."""
        job, expected = self.job(config, schedule)
        return relative_rms(job.results(run_golden(job))["output"], expected)


def _kernel(job: Job) -> tuple[Job, Floats]:
    return job, job.info["reference"]["output"]


@dataclass(frozen=True, kw_only=True)
class Gemm(JobWorkload):
    """``C = A Bᵀ`` with A ``[M, K]`` and B ``[N, K]``."""

    kind: ClassVar[str] = "gemm"
    scheduled: ClassVar[bool] = False
    M: int
    N: int
    K: int
    seed: int

    @classmethod
    def read(cls, section: Section, _: Path) -> "Gemm":
        """From a file's table."""
        M, N, K = (section.integer(key) for key in "MNK")
        return cls(**_common(section, f"gemm {M}x{N}x{K}"), M=M, N=N, K=K, seed=_seed(section))

    def job(self, config: Config, schedule: Schedule) -> tuple[Job, Floats]:
        """As in `JobWorkload`."""
        return _kernel(compile_gemm(config, self.M, self.N, self.K, seed=self.seed))


@dataclass(frozen=True, kw_only=True)
class Norm(JobWorkload):
    """M rows, normalized, and the linear layer ``[N, K]`` after that."""

    kind: ClassVar[str] = "norm"
    norm: Literal["rms", "layer"]
    M: int
    N: int
    K: int
    seed: int

    @classmethod
    def read(cls, section: Section, _: Path) -> "Norm":
        """From a file's table."""
        norm = section.choice("norm", NORMS, "rms")
        M, N, K = (section.integer(key) for key in "MNK")
        common = _common(section, f"{norm} norm {M}x{N}x{K}")
        return cls(**common, norm=norm, M=M, N=N, K=K, seed=_seed(section))

    def job(self, config: Config, schedule: Schedule) -> tuple[Job, Floats]:
        """As in `JobWorkload`."""
        sizes = self.K, self.N, self.M
        return _kernel(
            compile_norm_linear(config, self.norm, *sizes, schedule=schedule, seed=self.seed)
        )


@dataclass(frozen=True, kw_only=True)
class Attention(JobWorkload):
    """Attention of S rows, from q, k and vᵀ on."""

    kind: ClassVar[str] = "attention"
    S: int
    head_dim: int
    heads: int
    causal: bool
    split_keys: bool
    seed: int

    @classmethod
    def read(cls, section: Section, _: Path) -> "Attention":
        """From a file's table."""
        S, head_dim = section.integer("S"), section.integer("head_dim")
        heads, causal = section.integer("heads", 1), section.boolean("causal", False)
        split = section.boolean("split_keys", False)
        text = f"attention S={S} {heads}x{head_dim}"
        text += ", causal" * causal + ", split keys" * split
        common = _common(section, text)
        return cls(
            **common,
            S=S,
            head_dim=head_dim,
            heads=heads,
            causal=causal,
            split_keys=split,
            seed=_seed(section),
        )

    def job(self, config: Config, schedule: Schedule) -> tuple[Job, Floats]:
        """As in `JobWorkload`."""
        return _kernel(
            compile_attention(
                config,
                self.S,
                self.head_dim,
                self.heads,
                self.causal,
                schedule=schedule,
                split_keys=self.split_keys,
                seed=self.seed,
            )
        )


@dataclass(frozen=True, kw_only=True)
class SeededLayer(JobWorkload):
    """A transformer layer with weights and input from a seed."""

    kind: ClassVar[str] = "layer"
    arch: Arch
    tokens: int
    dim: int
    heads: int
    kv_heads: int
    hidden: int
    seed: int

    @classmethod
    def read(cls, section: Section, _: Path) -> "SeededLayer":
        """From a file's table."""
        arch, tokens = section.choice("arch", ARCHS), section.integer("tokens")
        dim, heads = section.integer("dim", 64), section.integer("heads", 4)
        kv_heads, hidden = section.integer("kv_heads", heads), section.integer("hidden", 128)
        if dim % heads:
            section.fail("dim", f"{dim} is no multiple of heads={heads}")
        if heads % kv_heads or (arch != "llama" and kv_heads != heads):
            section.fail("kv_heads", f"{kv_heads} does not go with heads={heads} of {arch}")
        if arch == "llama" and dim // heads % 2:
            section.fail("dim", f"{dim} leaves {dim // heads} to a head, and llama takes pairs")
        return cls(
            **_common(section, f"{arch} layer, {tokens} tokens, dim {dim}"),
            arch=arch,
            tokens=tokens,
            dim=dim,
            heads=heads,
            kv_heads=kv_heads,
            hidden=hidden,
            seed=_seed(section),
        )

    def job(self, config: Config, schedule: Schedule) -> tuple[Job, Floats]:
        """As in `JobWorkload`."""
        layer = seeded_layer(
            self.arch,
            self.seed,
            dim=self.dim,
            heads=self.heads,
            kv_heads=self.kv_heads,
            hidden=self.hidden,
        )
        return _layer_job(config, layer, seeded_input(layer, self.seed, self.tokens), schedule)


@dataclass(frozen=True, kw_only=True)
class CheckpointLayer(JobWorkload):
    """A layer of a checkpoint; decoders: of the text that the model itself writes."""

    kind: ClassVar[str] = "layer"
    checkpoint: Checkpoint
    layer: int
    tokens: int
    seed: int

    @classmethod
    def read(cls, section: Section, path: Path) -> "CheckpointLayer":
        """From a file's table; `path` is the checkpoint's."""
        layer, tokens = section.integer("layer", 0, low=0), section.integer("tokens")
        checkpoint = Checkpoint.at(path)
        model = checkpoint.load()
        if layer >= len(model.layers):
            section.fail("layer", f"is {layer}; {path} has 0 to {len(model.layers) - 1}")
        if tokens > model.context:
            section.fail("tokens", f"is {tokens}; the context of {path} has {model.context}")
        return cls(
            **_common(section, f"{path.name} layer {layer}, {tokens} tokens"),
            checkpoint=checkpoint,
            layer=layer,
            tokens=tokens,
            seed=_seed(section),
        )

    def job(self, config: Config, schedule: Schedule) -> tuple[Job, Floats]:
        """As in `JobWorkload`."""
        model = self.checkpoint.load()
        if model.classifier is None:
            rng = np.random.default_rng([self.seed, self.tokens])
            text = rng.integers(model.vocabulary, size=self.tokens).tolist()
        else:
            text = [_first(model)]
            decoder = Decoder(model, 1, length=self.tokens)
            while len(text) < self.tokens:
                text.append(int(decoder.step(text[-1:]).argmax()))
        x = model.layer_input(text, self.layer)
        return _layer_job(config, model.layers[self.layer], x, schedule)


@dataclass(frozen=True, kw_only=True)
class Decode(Workload):
    """One step of a decoder after `position` tokens, with what stays in the tiles loaded.

    Its error is that of the logits, in the text that the model itself writes.
    """

    kind: ClassVar[str] = "decode"
    checkpoint: Checkpoint
    position: int

    @classmethod
    def read(cls, section: Section, path: Path) -> "Decode":
        """From a file's table; `path` is the checkpoint's."""
        position = section.integer("position", low=0)
        checkpoint = Checkpoint.at(path)
        model = checkpoint.load()
        if model.classifier is None:
            section.fail("checkpoint", f"{path} is an encoder, which does not decode")
        if position >= model.context:
            section.fail("position", f"is {position}; {path} has 0 to {model.context - 1}")
        common = _common(section, f"{path.name} decode at {position}")
        return cls(**common, checkpoint=checkpoint, position=position)

    def compiled(self, config: Config, schedule: Schedule) -> Compiled:
        """As in `Workload`."""
        program = self._compiler(config, schedule).step(self.position)
        return Compiled(program.instructions, program.macs, program.ideal)

    def error(self, config: Config, schedule: Schedule) -> float:
        """As in `Workload`."""
        batch = GoldenBatch(self._compiler(config, schedule), 1)
        model = self.checkpoint.load()
        decoder = Decoder(model, 1, length=self.position + 1)
        token = _first(model)
        for _ in range(self.position + 1):
            got, expected = batch.step([token]), decoder.step([token])
            token = int(expected.argmax())
        return relative_rms(got, expected)

    def _compiler(self, config: Config, schedule: Schedule) -> ModelCompiler:
        return ModelCompiler(config, self.checkpoint.load(), schedule, tokens=self.position + 1)


KINDS = ("gemm", "norm", "attention", "layer", "decode")


def read_workload(section: Section, locate: Any) -> Workload:
    """A workload from a file's table.

    Parameters
    ----------
    locate : says where the checkpoint lies that the file calls by a name.

    Raises
    ------
    ConfigError
        If a value is missing, wrong or unknown.
    CheckpointError
        If the checkpoint cannot be used.
    """
    kind = section.choice("kind", KINDS)
    path: Path = Path()
    if kind == "decode" or (kind == "layer" and section.has("checkpoint")):
        path = locate(section.text("checkpoint"))
    readers: dict[str, Any] = {
        "gemm": Gemm,
        "norm": Norm,
        "attention": Attention,
        "layer": CheckpointLayer if section.has("checkpoint") else SeededLayer,
        "decode": Decode,
    }
    workload: Workload = readers[kind].read(section, path)
    section.finish()
    return workload


def relative_rms(got: Floats, expected: Floats) -> float:
    """RMS of the difference, relative to that of what is expected."""
    return float(np.sqrt(((got - expected) ** 2).sum() / (expected**2).sum()))


def _common(section: Section, name: str) -> dict[str, Any]:
    """What every workload has."""
    return {"name": section.text("name", name), "count": section.integer("count", 1)}


def _seed(section: Section) -> int:
    return section.integer("seed", 0, low=0)


def _first(model: Model) -> int:
    """The token that begins a text."""
    return model.bos[0] if model.bos else 0


def _layer_job(config: Config, layer: Layer, x: Floats, schedule: Schedule) -> tuple[Job, Floats]:
    return compile_layer(config, layer, x, schedule), layer.reference(x).output
