# SPDX-License-Identifier: Apache-2.0
"""Products of growing size, from operands in the scratchpad to MX blocks there."""

from functools import partial

from afternorm.bench.results import BenchResult, Panel
from afternorm.bench.subject import Case, Subject
from afternorm.compiler.kernels import compile_gemm
from afternorm.compiler.layer_weights import Schedule
from afternorm.config import Config
from afternorm.job import Job

SQUARES = (16, 32, 64, 128, 256, 512)
OTHERS = ((1, 256, 256), (8, 256, 256), (50, 70, 90), (256, 64, 64), (64, 64, 256))
"""M, N, K: a single row, fewer rows than columns of the array, multiples of nothing, short K."""


def bench_gemm(subject: Subject) -> BenchResult:
    """``C = A Bᵀ`` for ``M = N = K`` up to 512, and for some shapes that suit the array less."""
    result = subject.result("gemm", "C = A Bᵀ, A [M, K], B [N, K], to MX blocks")
    sizes = [(n, n, n) for n in SQUARES] + list(OTHERS)
    cases = [
        Case({"M": M, "N": N, "K": K}, partial(_gemm, M=M, N=N, K=K, seed=subject.seed))
        for M, N, K in sizes
    ]
    subject.measure(result, cases)
    squares = [one for one in result.measurements if len(set(one.labels.values())) == 1]
    result.panels.append(
        Panel(
            "square products",
            "M = N = K",
            "share of the span, %",
            {
                "useful": [(one.labels["M"], 100 * one.useful_span) for one in squares],
                "padded": [(one.labels["M"], 100 * one.ideal / one.span) for one in squares],
            },
        )
    )
    return result


def _gemm(config: Config, _: Schedule, *, M: int, N: int, K: int, seed: int) -> Job:
    return compile_gemm(config, M, N, K, seed=seed)
