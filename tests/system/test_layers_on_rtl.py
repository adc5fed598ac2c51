# SPDX-License-Identifier: Apache-2.0
"""Transformer layers and their parts on the RTL: every word as on the golden machine."""

from itertools import product
from typing import Literal

import pytest

from afternorm.checkpoints import ARCHS, Arch, Layer, find_checkpoint, seeded_input, seeded_layer
from afternorm.checkpoints.llama2c import load_checkpoint
from afternorm.compiler.kernels import compile_attention, compile_norm_linear
from afternorm.compiler.layer import compile_layer
from afternorm.compiler.layer_weights import Schedule
from afternorm.config import preset
from afternorm.isa import Flag
from tb.machine import CONFIGS, run_exact

TOKENS = 21
TUNED: tuple[Schedule, ...] = ("serial", "interleaved", "deferred")


def odd_layer(arch: Arch, seed: int) -> Layer:
    """A layer whose sizes are multiples of no block and no array."""
    kv_heads = 2 if arch == "llama" else 4
    return seeded_layer(arch, seed, dim=40, heads=4, kv_heads=kv_heads, hidden=52)


SOME = [("T4-B32-F15", "deferred")]
SOME += [(name, schedule) for name in ("tiny", "T2-B16-F9") for schedule in TUNED]
"""What runs without `make test-all`."""


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        pytest.param(*pair, marks=[] if pair in SOME else pytest.mark.slow)
        for pair in product(CONFIGS, TUNED)
    ],
)
def test_layer(name: str, arch: Arch, schedule: Schedule, seed: int) -> None:
    layer = odd_layer(arch, seed)
    x = seeded_input(layer, seed, TOKENS)
    x[3] = 0.0  # a row of zeros
    length = 13 if arch == "bert" else None  # whole key blocks are masked
    outcome = run_exact(compile_layer(CONFIGS[name], layer, x, schedule, length=length), seed)
    assert outcome.flags == 0


@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("name", ["T2-B16-F9", "T3-B8-F23", "T4-B32-F15"])
def test_statistics_spread_over_all_tiles(
    name: str, kind: Literal["rms", "layer"], seed: int
) -> None:
    run_exact(compile_norm_linear(CONFIGS[name], kind, 70, 50, 19, seed=seed), seed)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["T2-B16-F9", "T3-B8-F23", "T4-B32-F15"])
def test_attention_with_split_keys(name: str, causal: bool, seed: int) -> None:
    """Partial sums and partial products of the tiles meet in the reduction tree."""
    job = compile_attention(CONFIGS[name], 45, 12, 2, causal, split_keys=True, seed=seed)
    run_exact(job, seed)


@pytest.mark.parametrize(("spread", "flagged"), [(75.0, False), (700.0, True)])
def test_large_scores(spread: float, flagged: bool, seed: int) -> None:
    """Scores near +-300 are exact; beyond the range they saturate with a flag, and never NaN."""
    job = compile_attention(CONFIGS["tiny"], 24, 8, 2, causal=True, spread=spread, seed=seed)
    assert bool(run_exact(job, seed).flags >> Flag.EXP_RANGE & 1) == flagged


@pytest.mark.skipif(
    find_checkpoint("stories260K.bin") is None, reason="AFTERNORM_MODELS names no stories260K.bin"
)
def test_a_real_layer_on_small(seed: int) -> None:
    """A decoder layer of a real checkpoint, on preset small."""
    path = find_checkpoint("stories260K.bin")
    assert path is not None
    model = load_checkpoint(path)
    x = model.layer_input(model.greedy([1], 64), 2)
    run_exact(compile_layer(preset("small"), model.layers[2], x, "deferred"), seed)


def test_a_seeded_layer_on_small(seed: int) -> None:
    layer = seeded_layer("llama", seed, kv_heads=2)
    x = seeded_input(layer, seed, 64)
    run_exact(compile_layer(preset("small"), layer, x, "deferred"), seed)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
def test_layer_on_medium(arch: Arch, seed: int) -> None:
    layer = seeded_layer(arch, seed, kv_heads=2 if arch == "llama" else None)
    x = seeded_input(layer, seed, 64)
    for schedule in TUNED:
        run_exact(compile_layer(preset("medium"), layer, x, schedule), seed)
