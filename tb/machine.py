# SPDX-License-Identifier: Apache-2.0
"""Whole accelerators for tests: configurations, and runs that are compared word by word."""

from afternorm.config import preset
from afternorm.job import Job
from afternorm.memory_map import Status
from afternorm.simulation import Outcome, build, compare, run_golden, run_rtl

TINY = preset("tiny")
CONFIGS = {
    "tiny": TINY,
    "T2-B16-F9": TINY.with_(tiles=2, block=16, fraction_bits=9, columns=8, acc_width=32),
    "T3-B8-F23": TINY.with_(tiles=3, fraction_bits=23, columns=16, acc_width=32),
    "T4-B32-F15": TINY.with_(tiles=4, block=32, columns=8, acc_width=64),
}
"""Tiles, block sizes and formats, each value of one with several of the others."""


def run_exact(job: Job, seed: int, *, disturb: float = 0.0, stall: float = 0.0) -> Outcome:
    """Run a job on the RTL and check every word that it writes, and the flags.

    Raises
    ------
    AssertionError
        If the machine stopped with an error, anything differs from the golden machine, or idle
        slots are not attributed, each to one cause.
    """
    golden = run_golden(job)
    outcome = run_rtl(
        job, build(job.config), seed=seed, disturb=disturb, stall=stall, max_cycles=1_000_000
    )
    assert outcome.status == Status.DONE, f"{outcome.error.name} at {outcome.error_index}"
    assert sum(outcome.lost.values()) == outcome.idle_slots, f"seed {seed}: {outcome.lost}"
    comparison = compare(job, outcome, golden)
    assert comparison.mismatches == 0, f"seed {seed}: {comparison.first}"
    assert comparison.words > sum(len(words) for words in job.written.values())
    return outcome
