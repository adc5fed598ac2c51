# SPDX-License-Identifier: Apache-2.0
"""The instruction set: one fixed-width word an instruction, declared field by field.

From these declarations come the packing here, the golden machine's decoder and
the RTL's layouts.  Every instruction starts with a header (opcode, semaphores);
the body's fields are named by the engine that executes it.

Addresses and strides count words of the memory they point into: MX blocks in the
scratchpad, words of E floats in the vector memory, entries in the scale and
statistics memories, array widths (C columns) in an accumulator bank.
"""

from dataclasses import dataclass, field
from enum import IntEnum

INSTRUCTION_BITS = 384
INSTRUCTION_BYTES = 64
"""From one instruction to the next in DRAM, where a program lies at a multiple of this."""

WAITS = 4
SIGNALS = 3
FLOAT_FIELD_BITS = 35
"""Room for a float of F = 24."""


class Opcode(IntEnum):
    """Operations; 0 is illegal, so that running into cleared memory stops the machine."""

    SYNC = 1
    MATMUL = 2
    EXP = 3
    VECTOR = 4
    REDUCE = 5
    SCAN = 6
    GATHER = 7
    LOAD = 8
    STORE = 9
    END = 15


class Engine(IntEnum):
    """Engines with a queue each."""

    MATMUL = 0
    EXP = 1
    VECTOR = 2
    REDUCE = 3
    GATHER = 4
    LOAD = 5
    STORE = 6


class Target(IntEnum):
    """What LOAD and STORE move."""

    BLOCKS = 0
    """scratchpad blocks: mantissas and exponents are separate arrays in DRAM"""
    FLOATS = 1
    """words of the vector memory: E floats, each in a slot of `float_slot` bits"""


class Stats(IntEnum):
    """Which operand of a product the statistics tap looks at."""

    NONE = 0
    A = 1
    B = 2


class Scale(IntEnum):
    """What the scale unit makes of the sums s1 = sum(x) and s2 = sum(x*x) of a row."""

    SOFTMAX = 0
    """scale0 = 1 / s1 (0 if s1 is 0), scale1 = 0"""
    RMS = 1
    """scale0 = 1 / sqrt(s2 * inv_d + eps), scale1 = 0"""
    LAYER = 2
    """With mu = s1 * inv_d: scale0 = 1 / sqrt(max(s2 * inv_d - mu * mu, 0) + eps),
    scale1 = -mu * scale0."""
    SUM = 3
    """scale0 = s1, scale1 = s2"""


class Source(IntEnum):
    """Where a vector pass reads x."""

    ACC = 0
    VECTOR = 1
    BLOCKS = 2


class Operand(IntEnum):
    """The multiplier a, or the addend b, of a vector pass."""

    NONE = 0
    ROW_SCALE = 1
    """scale0 (for a) or scale1 (for b) of the row"""
    COLUMN_SCALE = 2
    """scale0 (for a) or scale1 (for b) of the column"""
    VECTOR = 3
    """vector memory, word `base + row * stride + chunk` (stride 0: by column)"""


class Pair(IntEnum):
    """The last stage of a vector pass."""

    NONE = 0
    ROTATE = 1
    """y[2i] = x[2i]*u[2i] + x[2i+1]*v[2i] and y[2i+1] = x[2i+1]*u[2i+1] + x[2i]*v[2i+1]"""
    GATE = 2
    """y = f(x[c]) * x[c + gate_offset]"""


class Function(IntEnum):
    """Functions of the vector unit's tables."""

    NONE = 0
    SILU = 1
    GELU = 2
    SIGMOID = 3
    TANH = 4
    EXP = 5
    RECIPROCAL = 6
    RSQRT = 7


class Error(IntEnum):
    """Why the machine stopped."""

    NONE = 0
    OPCODE = 1
    """The opcode is not one of `Opcode`."""
    ADDRESS = 2
    """An address lies outside its memory."""
    SEMAPHORE = 3
    """A semaphore's number is too large, or its count overflowed."""
    DEADLOCK = 4
    """No engine made progress for `watchdog_cycles`."""
    OPERAND = 5
    """A count is zero or too large, or a selector has no meaning."""
    BUS = 6
    """A read or write of DRAM was answered with an error."""


class Flag(IntEnum):
    """Sticky numeric flags, by bit number; none of them stops the machine."""

    ACCUMULATOR_OVERFLOW = 0
    STATISTICS_OVERFLOW = 1
    SCALE_OVERFLOW = 2
    ZERO_SUM = 3
    """A softmax row summed to zero, or a norm had zero variance and eps: its scale is 0."""
    EXP_RANGE = 4
    """A score lay outside the exponent's range and was saturated."""
    VECTOR_OVERFLOW = 5


ADDRESS = 20
DRAM_ADDRESS = 40
"""Bits of a byte address in DRAM."""
DRAM_STRIDE = 32
STRIDE = 16
COUNT = 12
SMALL = 12

HEADER = (
    ("opcode", 4),
    *((f"wait{i}", 6) for i in range(WAITS)),
    *((f"signal{i}", 6) for i in range(SIGNALS)),
    ("early", 6),
    ("drain", 1),
)
"""Semaphore fields hold the semaphore's number plus one; 0 is none.  `drain`: the engine
finishes its earlier instructions before it touches a memory for this one."""

BODIES: dict[Opcode, tuple[tuple[str, int], ...]] = {
    Opcode.SYNC: (("engine", 3),),
    Opcode.MATMUL: (
        ("rows", COUNT),
        ("blocks", COUNT),
        ("cols", COUNT),
        ("bank", 3),
        ("acc_tile", 8),
        ("accumulate", 1),
        ("a_base", ADDRESS),
        ("a_row", STRIDE),
        ("a_block", STRIDE),
        ("b_base", ADDRESS),
        ("b_col", STRIDE),
        ("b_block", STRIDE),
        ("stats", 2),
        ("stat_base", SMALL),
        ("stat_owned", COUNT),
        ("stat_first", 1),
        ("stat_squares", 1),
    ),
    Opcode.EXP: (
        ("rows", COUNT),
        ("cols", COUNT),
        ("bank", 3),
        ("acc_tile", 8),
        ("query_base", 16),
        ("key_base", 16),
        ("key_tile", 16),
        ("length", 16),
        ("causal", 1),
        ("p_base", ADDRESS),
        ("p_row", STRIDE),
        ("p_block", STRIDE),
    ),
    Opcode.VECTOR: (
        ("rows", COUNT),
        ("cols", COUNT),
        ("source", 2),
        ("bank", 3),
        ("acc_tile", 8),
        ("x_base", ADDRESS),
        ("x_row", STRIDE),
        ("x_block", STRIDE),
        ("tree", 1),
        ("a", 2),
        ("b", 2),
        ("scale_base", SMALL),
        ("function", 4),
        ("pair", 2),
        ("gate_offset", 8),
        ("p_base", 16),
        ("p_row", STRIDE),
        ("q_base", 16),
        ("q_row", STRIDE),
        ("to_vector", 1),
        ("y_base", 16),
        ("y_row", STRIDE),
        ("to_blocks", 1),
        ("m_base", ADDRESS),
        ("m_row", STRIDE),
        ("m_block", STRIDE),
    ),
    Opcode.REDUCE: (
        ("rows", COUNT),
        ("mode", 2),
        ("tree", 1),
        ("stat_base", SMALL),
        ("scale_base", SMALL),
        ("inv_d", FLOAT_FIELD_BITS),
        ("eps", FLOAT_FIELD_BITS),
    ),
    Opcode.SCAN: (
        ("rows", COUNT),
        ("blocks", COUNT),
        ("a_base", ADDRESS),
        ("a_row", STRIDE),
        ("a_block", STRIDE),
        ("stat_base", SMALL),
        ("stat_owned", COUNT),
        ("stat_first", 1),
        ("stat_squares", 1),
    ),
    Opcode.GATHER: (
        ("rows", COUNT),
        ("blocks", COUNT),
        ("src_base", ADDRESS),
        ("src_row", STRIDE),
        ("src_block", STRIDE),
        ("dst_base", ADDRESS),
        ("dst_row", STRIDE),
        ("dst_block", STRIDE),
        ("dst_tile", STRIDE),
    ),
    **dict.fromkeys(
        (Opcode.LOAD, Opcode.STORE),
        (
            ("target", 1),
            ("count", ADDRESS),
            ("base", ADDRESS),
            ("shared", 1),
            ("dram", DRAM_ADDRESS),
            ("dram_tile", DRAM_STRIDE),
            ("exponents", DRAM_ADDRESS),
            ("exponents_tile", DRAM_STRIDE),
        ),
    ),
    Opcode.END: (),
}

ENGINE_OF = {
    Opcode.MATMUL: Engine.MATMUL,
    Opcode.EXP: Engine.EXP,
    Opcode.VECTOR: Engine.VECTOR,
    Opcode.REDUCE: Engine.REDUCE,
    Opcode.SCAN: Engine.REDUCE,
    Opcode.GATHER: Engine.GATHER,
    Opcode.LOAD: Engine.LOAD,
    Opcode.STORE: Engine.STORE,
}
"""The engine that executes an opcode; a SYNC names its engine, an END has none."""


def layout(opcode: Opcode) -> tuple[tuple[str, int], ...]:
    """Header and body fields of an opcode, least significant first: names and widths."""
    return HEADER + BODIES[opcode]


@dataclass
class Instruction:
    """One instruction: an opcode, the body's fields by name (absent ones are 0), semaphores.

    Raises
    ------
    ValueError
        If a field is unknown, or too small or large for its width.
    """

    opcode: Opcode
    body: dict[str, int] = field(default_factory=dict)
    waits: tuple[int, ...] = ()
    signals: tuple[int, ...] = ()
    early: int | None = None
    drain: bool = False

    def __post_init__(self) -> None:
        widths = dict(BODIES[self.opcode])
        for name, value in self.body.items():
            if name not in widths:
                raise ValueError(f"{self.opcode.name} has no field {name!r}")
            if not 0 <= value < 1 << widths[name]:
                raise ValueError(
                    f"{self.opcode.name}.{name} = {value} does not fit {widths[name]} bits"
                )
        self.body = {name: int(self.body.get(name, 0)) for name in widths}

    def __getitem__(self, name: str) -> int:
        return self.body[name]

    @property
    def engine(self) -> Engine | None:
        """The engine that executes it."""
        if self.opcode == Opcode.SYNC:
            return Engine(self.body["engine"])
        return ENGINE_OF.get(self.opcode)

    def pack(self) -> int:
        """The instruction word, `INSTRUCTION_BITS` wide."""
        if len(self.waits) > WAITS or len(self.signals) > SIGNALS:
            raise ValueError(f"at most {WAITS} waits and {SIGNALS} signals an instruction")
        values = {"opcode": int(self.opcode), **self.body}
        values |= {f"wait{i}": s + 1 for i, s in enumerate(self.waits)}
        values |= {f"signal{i}": s + 1 for i, s in enumerate(self.signals)}
        if self.early is not None:
            values["early"] = self.early + 1
        values["drain"] = int(self.drain)
        word = shift = 0
        for name, width in layout(self.opcode):
            word |= values.get(name, 0) << shift
            shift += width
        return word


def unpack(word: int) -> Instruction:
    """The instruction of a word (the inverse of `Instruction.pack`).

    Raises
    ------
    ValueError
        If the opcode is illegal.
    """
    values = {}
    opcode = Opcode(word & 15)
    for name, width in layout(opcode):
        values[name] = word & ((1 << width) - 1)
        word >>= width
    return Instruction(
        opcode,
        {name: values[name] for name, _ in BODIES[opcode]},
        tuple(values[f"wait{i}"] - 1 for i in range(WAITS) if values[f"wait{i}"]),
        tuple(values[f"signal{i}"] - 1 for i in range(SIGNALS) if values[f"signal{i}"]),
        values["early"] - 1 if values["early"] else None,
        bool(values["drain"]),
    )
