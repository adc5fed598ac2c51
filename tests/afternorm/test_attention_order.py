# SPDX-License-Identifier: Apache-2.0
"""How an attention's queries are cut, and in which order its products are issued."""

import random
from itertools import pairwise

import pytest

from afternorm.compiler.attention_order import (
    LEADS,
    LEADS_SERIAL,
    Pace,
    Work,
    causal_rows,
    order,
)
from afternorm.compiler.kernels import compile_attention
from afternorm.compiler.layer import row_groups
from afternorm.config import Config, preset
from afternorm.cycles import predict
from afternorm.errors import CapacityError

CONFIGS = [preset("tiny"), preset("small"), preset("medium"), preset("large")]


@pytest.mark.parametrize("config", CONFIGS, ids=["tiny", "small", "medium", "large"])
def test_rows_are_cut_at_blocks_of_keys(config: Config) -> None:
    pace = Pace(config, config.block)
    for count in range(1, config.rows_max + 1):
        for position in (0, config.block, 7 * config.block):
            rows = causal_rows(pace, (0, count), position=position, keys=position + count)
            assert rows[0][0] == 0
            assert all(sum(one) == other[0] for one, other in pairwise(rows))
            assert sum(rows[-1]) == count
            # The last cut alone may move, so that it leaves as many rows as there are columns.
            assert all(first % config.block == 0 for first, _ in rows[:-1])
            if len(rows) > 1:
                assert rows[-1][1] >= min(config.block, pace.least)


def test_a_cut_must_pay() -> None:
    """Where nearly all keys are seen by all queries, it does not."""
    pace = Pace(preset("medium"), 128)
    assert len(causal_rows(pace, (0, 128), position=0, keys=128)) == 4
    assert causal_rows(pace, (0, 128), position=8064, keys=8192) == [(0, 128)]


def test_the_finest_cut_has_no_more_keys_than_needed() -> None:
    """A block of queries meets the blocks up to its own one, if only the array's cycles count."""
    pace = Pace(preset("medium"), 64)
    rows = causal_rows(pace, (0, 256), position=0, keys=256, waits=False)
    assert rows == [(first, 32) for first in range(0, 256, 32)]
    # 16 rows take no longer than 4 would; the 20 before them need a block of keys less.
    rows = causal_rows(pace, (0, 100), position=0, keys=100, waits=False)
    assert rows == [(0, 32), (32, 32), (64, 20), (84, 16)]


def test_too_few_banks() -> None:
    with pytest.raises(CapacityError, match="a head of 200 features needs 4 accumulator banks"):
        Pace(preset("medium"), 200)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize(
    ("serial", "lead"),
    [(serial, lead) for serial, leads in ((False, LEADS), (True, LEADS_SERIAL)) for lead in leads],
)
def test_products_follow_their_scores(serial: bool, lead: int, pooled: bool, seed: int) -> None:
    rng = random.Random(seed)
    for config in CONFIGS:
        pace = Pace(config, config.block)
        for results in (1, 2, 7, 30):
            units = []
            for _ in range(results):
                parts = rng.randint(1, 3)
                rows = rng.randint(1, config.rows_max)
                for part in range(parts):
                    pieces = (pace.step,) * (pace.width // pace.step)
                    ends = part + 1 == parts
                    units.append(Work(rows, sum(pieces), pieces, part == 0, ends))
            found = order(pace, units, serial=serial, pooled=pooled, lead=lead)
            due = found.due
            assert found.end >= pace.total(units)
            assert due == sorted(due)
            assert due[-1] == len(units) - 1
            assert all(number <= after for number, after in enumerate(due))
            if serial:
                # All of a result's probabilities are needed for their sum.
                ends = [n for n, one in enumerate(units) if one.last]
                for number, after in enumerate(due):
                    assert after >= min(end for end in ends if end >= number)
            check_banks(config, pace, units, due, found.score_banks, found.value_banks)
            if not pooled:
                assert max(found.score_banks) < pace.score_banks <= min(found.value_banks)


def check_banks(
    config: Config,
    pace: Pace,
    units: list[Work],
    due: list[int],
    score_banks: list[int],
    value_banks: list[int],
) -> None:
    """No scores are made where a result is not complete."""
    assert len(score_banks) == len(units)
    assert len(value_banks) == len(pace.parts) * sum(one.last for one in units)
    assert {*score_banks, *value_banks} <= set(range(config.acc_banks))
    number = results = 0
    own: set[int] = set()
    for made, bank in enumerate(score_banks):
        assert bank not in own
        while number < len(units) and due[number] == made:
            if units[number].first:
                first = results * len(pace.parts)
                own = set(value_banks[first : first + len(pace.parts)])
                assert len(own) == len(pace.parts)
            if units[number].last:
                own = set()
                results += 1
            number += 1


MEDIUM = preset("medium").with_(
    tiles=1, scratchpad_depth=1 << 14, scale_depth=2048, stat_depth=2048
)
SQUARE = preset("small").with_(block=16, columns=16)


@pytest.mark.parametrize(
    ("config", "S", "head", "heads", "causal", "most"),
    [
        pytest.param(MEDIUM, 128, 64, 8, True, 21_254, id="causal"),
        pytest.param(MEDIUM, 128, 96, 8, False, 50_374, id="wide"),
        # Operands that met in a bank once cost 1,614 cycles more.
        pytest.param(MEDIUM, 128, 48, 8, True, 18_606, id="padded"),
        pytest.param(SQUARE, 64, 64, 4, True, 5_978, id="square"),
    ],
)
def test_serial_baseline_is_tuned(
    config: Config, S: int, head: int, heads: int, causal: bool, most: int
) -> None:
    """Not slower than the orders that rules for the lead once found."""
    job = compile_attention(config, S, head, heads, causal, schedule="serial")
    assert predict(config, job.program).cycles <= most


@pytest.mark.parametrize(
    ("config", "S", "head"),
    [
        # The result's place decides whether what streams and what is loaded meet in a bank.
        pytest.param(MEDIUM, 128, 48, id="banks"),
        pytest.param(MEDIUM.with_(columns=8, lanes=8), 128, 48, id="banks of a narrow array"),
        # More keys from unit to unit, or fewer, or both in turn: the array waits in each of these.
        pytest.param(MEDIUM, 100, 32, id="remainder"),
        pytest.param(MEDIUM.with_(columns=8, lanes=8), 36, 32, id="few rows"),
        # The usual lead is too short.
        pytest.param(MEDIUM.with_(columns=32), 128, 64, id="wide array"),
        # One column of weight tiles holds a head: all of P passes the tap.
        pytest.param(MEDIUM.with_(columns=32, acc_banks=8), 36, 32, id="narrow heads"),
    ],
)
def test_no_slot_is_lost(config: Config, S: int, head: int) -> None:
    """To whom it was lost once, in causal attention of eight heads back to back."""
    job = compile_attention(config, S, head, 8, True)
    prediction = predict(config, job.program)
    assert prediction.idle_slots == 0
    assert prediction.span == job.info["ideal"] + config.rows + 2 * config.columns + 13


@pytest.mark.slow
def test_plans_that_do_not_fit_are_left_out() -> None:
    """Of 100 rows, those with the most probabilities between scores and values; then all."""
    config = preset("medium").with_(tiles=1)
    job = compile_attention(config, 100, 64, 8, False, schedule="serial")
    assert predict(config, job.program).cycles <= 25_095
    with pytest.raises(CapacityError, match="scratchpad blocks of 2048"):
        compile_attention(config.with_(scratchpad_depth=2048), 100, 64, 8, False)


def test_groups_of_rows() -> None:
    """Whole blocks but for the last, none larger than a bank, and as even as that allows."""
    for config in CONFIGS:
        for tokens in range(1, 3 * config.rows_max):
            for least in (1, 2):
                groups = row_groups(config, tokens, least)
                assert sum(rows for _, rows in groups) == tokens
                assert all(0 < rows <= config.rows_max for _, rows in groups)
                assert all(first % config.block == 0 for first, _ in groups)
    assert row_groups(preset("medium"), 65) == [(0, 32), (32, 33)]
    assert row_groups(preset("medium"), 100) == [(0, 64), (64, 36)]
    assert row_groups(preset("medium"), 33) == [(0, 33)]
