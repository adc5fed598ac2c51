# SPDX-License-Identifier: Apache-2.0
"""What benchmarks found out, as numbers, and how their curves are to be drawn."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from afternorm.compiler.layer_weights import Schedule

On = Literal["rtl", "model"]
Label = int | str


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Programs that were timed, one after the other.

    Attributes
    ----------
    labels : what was measured, by column of the table.
    schedule : when rows are normalized; `none`: not at all.
    cycles : from start to end of the programs.
    span : of these, from the first operand read to the last accumulator write; 0 without a product.
    ideal : array cycles of the padded products.
    macs : multiplications that the results need.
    multipliers : of all arrays.
    lost : idle slots, cycles between the first and the last row of A in which none enters the
        array, by whom they are lost to.
    instructions : in the programs.
    dram_beats : beats that their loads and stores need.
    bound : cycles that cannot be undercut (see the benchmark); 0 if none is stated.
    differ : words that differ from the golden machine's; None on the model, which has no values.
    batch : sequences of which the programs make a token each.
    """

    labels: dict[str, Label]
    schedule: Schedule
    cycles: int
    span: int
    ideal: int
    macs: int
    multipliers: int
    lost: dict[str, int]
    instructions: int
    dram_beats: int = 0
    bound: int = 0
    differ: int | None = None
    batch: int = 1

    @property
    def a_token(self) -> float:
        """Cycles a token, where the programs decode."""
        return self.cycles / self.batch

    @property
    def idle_slots(self) -> int:
        """All that were lost."""
        return sum(self.lost.values())

    @property
    def useful(self) -> float:
        """Share of the multipliers' cycles, from start to end, that the results need."""
        return self.macs / (self.multipliers * self.cycles)

    @property
    def padded(self) -> float:
        """The same with the padding of operands to whole blocks and array widths."""
        return self.ideal / self.cycles

    @property
    def of_bound(self) -> float:
        """The bound as a share of the cycles; 0 if none is stated."""
        return self.bound / self.cycles

    @property
    def useful_span(self) -> float:
        """`useful`, of the span; 0 without a product."""
        return self.macs / (self.multipliers * self.span) if self.span else 0.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {
            "idle_slots": self.idle_slots,
            "useful": self.useful,
            "padded": self.padded,
            "of_bound": self.of_bound,
            "useful_span": self.useful_span,
            "a_token": self.a_token,
        }


@dataclass(frozen=True)
class Table:
    """Another table of a benchmark: its heading, columns and rows, as they are printed."""

    heading: str
    columns: tuple[str, ...]
    rows: list[tuple[Label | float, ...]]


@dataclass(frozen=True)
class Panel:
    """Curves in one pair of axes.

    Attributes
    ----------
    title, x, y : of the panel and its axes.
    curves : points by name.
    bars : draw points with the same x side by side as bars, x being names.
    """

    title: str
    x: str
    y: str
    curves: dict[str, list[tuple[Label, float]]]
    bars: bool = False


@dataclass(kw_only=True)
class BenchResult:
    """What one benchmark found out.

    Attributes
    ----------
    name : of the benchmark.
    title : what was measured, in words.
    configuration : its name.
    parameters : the accelerator's sizes.
    on : RTL, or the model of its time.
    seed : of weights and inputs.
    hop_latency : cycles more for a level of the tree, on the model.
    measurements : the rows of the first table.
    tables : all others.
    panels : for a plot.
    notes : what was left out or changed, and why.
    """

    name: str
    title: str
    configuration: str
    parameters: dict[str, int]
    on: On
    seed: int
    hop_latency: int = 0
    measurements: list[Measurement] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether everything that was compared with the golden machine was equal."""
        return not any(one.differ for one in self.measurements)

    def baseline(self, one: Measurement) -> Measurement | None:
        """The same without normalization, if it was measured."""
        for other in self.measurements:
            if other.schedule == "none" and other.labels == one.labels:
                return other
        return None

    def overhead(self, one: Measurement) -> float | None:
        """What normalization adds to a measurement's cycles, as a share of those without it."""
        base = self.baseline(one)
        return None if base is None else one.cycles / base.cycles - 1

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "bench": self.name,
            "title": self.title,
            "configuration": self.configuration,
            "parameters": self.parameters,
            "on": self.on,
            "seed": self.seed,
            "hop_latency": self.hop_latency,
            "exact": self.exact if self.on == "rtl" else None,
            "measurements": [
                one.to_dict() | {"overhead": self.overhead(one)} for one in self.measurements
            ],
            "tables": [
                {
                    "heading": table.heading,
                    "rows": [dict(zip(table.columns, row, strict=True)) for row in table.rows],
                }
                for table in self.tables
            ],
            "notes": self.notes,
        }
