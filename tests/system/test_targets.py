# SPDX-License-Identifier: Apache-2.0
"""What the schedules cost, in simulated cycles (definitions: docs/architecture.md).

Every run is compared with the golden machine word by word as well.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest

from afternorm.bench.decode import weight_bound
from afternorm.checkpoints import Model, seeded_input, seeded_layer
from afternorm.compiler.kernels import compile_attention, compile_gemm, compile_norm_linear
from afternorm.compiler.layer import compile_layer
from afternorm.compiler.layer_weights import SCHEDULES, Schedule
from afternorm.compiler.model import ModelCompiler
from afternorm.config import Config, preset
from afternorm.cycles import predict
from afternorm.device import RtlDevice
from afternorm.golden_device import GoldenDevice
from afternorm.inference import Inference
from afternorm.job import Job
from afternorm.simulation import Outcome
from tb.machine import run_exact

SQUARE = preset("small").with_(block=16, columns=16)
"""R = C = 16."""
TILES = SQUARE.with_(tiles=4)
WIDE = preset("large").with_(tiles=1)
"""R = C = 32: one tile of preset large."""

MEDIUM = preset("medium").with_(tiles=1, scratchpad_depth=1 << 15)
"""R = 32, C = 16."""

LAYER = preset("medium").with_(
    tiles=1, scratchpad_depth=1 << 17, vector_depth=1 << 15, scale_depth=2048
)
"""R = 32, C = 16, with room for a whole layer of MiniLM's size."""

NORMALIZATION_CYCLES = 32
"""Most cycles that a deferred normalization adds to a program, whatever its size."""

MACHINES = [
    pytest.param(SQUARE, id="T1"),
    pytest.param(TILES, id="T4", marks=pytest.mark.slow),
]


def costs(job_of: Callable[[Schedule], Job], seed: int) -> dict[str, Outcome]:
    """A job under every schedule, printed side by side."""
    outcomes: dict[str, Outcome] = {}
    for schedule in SCHEDULES:
        outcomes[schedule] = run_exact(job_of(schedule), seed)
    base = outcomes["none"].cycles
    for schedule, outcome in outcomes.items():
        print(
            f"{schedule:12} {outcome.cycles:7} cycles, {outcome.cycles / base - 1:+.2%}, "
            f"idle {outcome.idle_slots}, span {outcome.span}"
        )
    return outcomes


def check_deferred(outcomes: dict[str, Outcome]) -> None:
    extra = outcomes["deferred"].cycles - outcomes["none"].cycles
    assert extra <= NORMALIZATION_CYCLES
    assert extra <= 0.01 * outcomes["none"].cycles
    assert outcomes["deferred"].cycles < min(outcomes[s].cycles for s in ("serial", "interleaved"))


@pytest.mark.parametrize("kind", ["rms", pytest.param("layer", marks=pytest.mark.slow)])
@pytest.mark.parametrize("config", MACHINES)
def test_deferred_norm_is_free(config: Config, kind: Literal["rms", "layer"], seed: int) -> None:
    check_deferred(
        costs(lambda s: compile_norm_linear(config, kind, 256, 256, 64, schedule=s), seed)
    )


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("config", MACHINES)
def test_deferred_softmax_is_free(config: Config, causal: bool, seed: int) -> None:
    check_deferred(costs(lambda s: compile_attention(config, 64, 64, 4, causal, schedule=s), seed))


def test_gemm_on_the_machine(seed: int) -> None:
    """M=64, K=64 and 16 weight tiles through scheduler, scratchpad and vector unit."""
    outcome = run_exact(compile_gemm(SQUARE, 64, 64, 64), seed)
    ideal = 64 * 16
    print(f"ideal {ideal}, span {outcome.span}, idle {outcome.idle_slots}")
    assert outcome.idle_slots == 0
    assert outcome.span <= ideal + 16 + 2 * 16 + 24


@pytest.mark.parametrize(
    ("S", "head_dim", "heads", "causal"),
    [
        (48, 64, 8, False),
        (48, 64, 8, True),
        (36, 48, 8, False),
        (64, 32, 8, True),
        (48, 96, 4, True),
    ],
)
def test_attention_has_no_idle_slot(
    S: int, head_dim: int, heads: int, causal: bool, seed: int
) -> None:
    """Heads back to back; heads that fill one accumulator bank, half a one, and two."""
    check_attention(SQUARE, S, head_dim, heads, causal, 0.01, seed)


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("S", [64, 256])
def test_attention_on_a_tile_of_medium(S: int, causal: bool, seed: int) -> None:
    check_attention(MEDIUM, S, 64, 8, causal, 0.01 if S < 256 else 0.003, seed)


def check_attention(
    config: Config, S: int, head_dim: int, heads: int, causal: bool, share: float, seed: int
) -> None:
    """The span is the ideal and what fills and drains the array."""
    job = compile_attention(config, S, head_dim, heads, causal)
    outcome = run_exact(job, seed)
    ideal, constant = job.info["ideal"], config.rows + 2 * config.columns + 13
    print(f"ideal {ideal}, span {outcome.span}, idle {outcome.idle_slots}, constant {constant}")
    if causal:
        # A block of queries needs the blocks of keys up to its own one.
        blocks, R, C = S // config.block, config.block, config.columns
        passes = -(-head_dim // R) * (R // C) + -(-head_dim // C)
        assert ideal == heads * R * passes * blocks * (blocks + 1) // 2
    assert outcome.idle_slots == 0
    assert outcome.span == ideal + constant
    assert outcome.span <= max((1 + share) * ideal, ideal + constant)


@pytest.mark.slow
@pytest.mark.parametrize("heads", [1, 8])
def test_attention_core(heads: int, seed: int) -> None:
    """QK, softmax and AV of S=128, head dimension 64, on R=C=32."""
    job = compile_attention(WIDE, 128, 64, heads, causal=False)
    outcome = run_exact(job, seed)
    ideal = heads * 2048
    print(f"ideal {ideal}, span {outcome.span}, idle {outcome.idle_slots}")
    assert job.info["ideal"] == ideal
    if heads == 1:
        assert outcome.span <= ideal + 2 * (32 + 32) + 64
    else:
        assert outcome.span <= 1.02 * ideal


@pytest.mark.slow
def test_decoding_is_bound_by_its_weights(stories: Model, seed: int) -> None:
    """stories260K through a 64-bit DRAM port: 90 % of what its weights take."""
    config = preset("small").with_(dram_width=64, scratchpad_depth=1 << 14)
    compiler = ModelCompiler(config, stories, tokens=stories.context)
    assert (compiler.resident, compiler.cached) == (False, True)
    bound, image = weight_bound(config, stories).dram, compiler.image()
    with RtlDevice(config, image, seed=seed) as device:
        rtl = Inference(compiler, device)
        golden = Inference(compiler, GoldenDevice(config, image))
        for token in stories.encode("Once upon")[:3]:
            np.testing.assert_array_equal(rtl.feed([token]), golden.feed([token]))
    for position, done in enumerate(rtl.done):
        predicted = predict(config, done.program.instructions).cycles
        share = bound / done.run.cycles
        print(f"position {position}: {done.run.cycles} cycles, {predicted} predicted, {share:.1%}")
        assert abs(predicted - done.run.cycles) <= 0.01 * done.run.cycles
        assert share >= 0.90


@pytest.mark.slow
def test_a_whole_layer_never_waits(seed: int) -> None:
    """A layer of MiniLM's sizes, 128 tokens: BERT's LayerNorms, softmax and residuals are free."""
    layer = seeded_layer("bert", seed, dim=384, heads=12, hidden=1536)
    x = seeded_input(layer, seed, 128)
    job = compile_layer(LAYER, layer, x, "deferred")
    deferred = run_exact(job, seed)
    none = run_exact(compile_layer(LAYER, layer, x, "none"), seed)
    ideal = job.info["ideal"]
    print(f"ideal {ideal}, deferred {deferred.cycles}, none {none.cycles}")
    print(f"idle slots {deferred.idle_slots}, utilization {ideal / deferred.cycles:.4f}")
    assert deferred.cycles <= 1.003 * none.cycles
    assert ideal >= 0.998 * deferred.cycles
