# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: what the array achieves, and what normalization costs it, as tables.

`afternorm bench NAME` runs one of them on the generated RTL or on the model of its time
(`afternorm.cycles`).  Each makes programs with the compiler, measures them and returns a
`BenchResult`, which prints, writes JSON and draws in the same way for all.
"""

from afternorm.bench.attention import bench_attention
from afternorm.bench.decode import bench_decode
from afternorm.bench.flashnorm import FlashNorm, flashnorm
from afternorm.bench.gemm import bench_gemm
from afternorm.bench.layers import PUBLISHED, bench_layer
from afternorm.bench.norm import bench_norm
from afternorm.bench.prefill import bench_prefill
from afternorm.bench.results import BenchResult, Measurement, Panel
from afternorm.bench.scaling import bench_scaling
from afternorm.bench.simulation import bench_simulation
from afternorm.bench.step import bench_step
from afternorm.bench.subject import Subject

__all__ = [
    "PUBLISHED",
    "BenchResult",
    "FlashNorm",
    "Measurement",
    "Panel",
    "Subject",
    "bench_attention",
    "bench_decode",
    "bench_gemm",
    "bench_layer",
    "bench_norm",
    "bench_prefill",
    "bench_scaling",
    "bench_simulation",
    "bench_step",
    "flashnorm",
]
