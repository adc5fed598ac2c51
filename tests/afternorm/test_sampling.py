# SPDX-License-Identifier: Apache-2.0
"""Sampling: one token by its probability, and whole texts."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from afternorm.checkpoints import load_model
from afternorm.errors import AfternormError
from afternorm.models import ADDER
from afternorm.sampling import Sampler

LOGITS = np.log([0.1, 0.4, 0.05, 0.3, 0.15])


def frequencies(sampler: Sampler, draws: int = 4000) -> np.ndarray:
    counts = np.bincount([sampler(LOGITS) for _ in range(draws)], minlength=5)
    return counts / draws


def test_greedy_takes_the_lowest_of_equals() -> None:
    assert Sampler()(np.array([1.0, 3.0, 3.0, 2.0])) == 1
    assert Sampler(0.0, top_p=0.5, seed=9)(np.array([-5.0, -1e300])) == 0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_the_probabilities(temperature: float, seed: int) -> None:
    expected = np.exp(LOGITS) ** (1.0 / temperature)
    expected /= expected.sum()
    got = frequencies(Sampler(temperature, seed=seed))
    # Six standard deviations.
    assert (np.abs(got - expected) < 6.0 * np.sqrt(expected / 4000)).all()


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.2, [1]), (0.39, [1]), (0.5, [1, 3]), (0.69, [1, 3]), (0.8, [1, 3, 4]), (1.0, range(5))],
)
def test_the_nucleus_is_the_smallest_that_is_likely_enough(
    top_p: float, kept: list[int], seed: int
) -> None:
    got = frequencies(Sampler(1.0, top_p, seed))
    expected = np.zeros(5)
    expected[list(kept)] = np.exp(LOGITS)[list(kept)]
    expected /= expected.sum()
    assert (np.abs(got - expected) <= 6.0 * np.sqrt(expected / 4000)).all()


def test_equals_in_the_nucleus_go_by_their_number(seed: int) -> None:
    sampler = Sampler(1.0, top_p=0.5, seed=seed)
    assert {sampler(np.zeros(4)) for _ in range(200)} == {0, 1}


def test_the_same_seed_draws_the_same() -> None:
    def draw(seed: int) -> list[int]:
        sampler = Sampler(1.0, seed=seed)
        return [sampler(LOGITS) for _ in range(50)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_extreme_logits_and_temperatures() -> None:
    logits = np.array([-1e4, 1e4, 9.9e3])
    for temperature in (1e-300, 1e-3, 1.0):
        assert Sampler(temperature)(logits) == 1
    assert Sampler(1e300, seed=1)(logits) in range(3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -0.1}, "temperature=-0.1 must be finite"),
        ({"temperature": math.nan}, "temperature=nan must be finite"),
        ({"temperature": math.inf}, "temperature=inf must be finite"),
        ({"top_p": 0.0}, "top_p=0.0 must be above 0"),
        ({"top_p": 1.1}, "top_p=1.1 must be above 0"),
        ({"top_p": math.nan}, "top_p=nan must be above 0"),
        ({"seed": -1}, "seed=-1 must not be negative"),
    ],
)
def test_impossible_parameters(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(AfternormError, match=message):
        Sampler(**arguments)


def test_logits_that_are_not_finite() -> None:
    for temperature in (0.0, 1.0):
        with pytest.raises(AfternormError, match="logit of token 1 is nan"):
            Sampler(temperature)(np.array([0.0, math.nan, math.inf]))


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/sample_text.py", *map(str, arguments)]
    root = Path(__file__).parents[2]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)


def test_sampled_texts(tmp_path: Path) -> None:
    path = tmp_path / "texts.json"
    # The adder is sure of much; at this temperature it is not.
    options = ("--sequences", 6, "--length", 12, "--temperature", 10.0)
    texts = []
    for seed in (5, 5, 6):
        done = run(ADDER, "-o", path, *options, "--seed", seed)
        assert done.returncode == 0, done.stderr
        texts.append(json.loads(path.read_text()))
    assert texts[0] == texts[1]
    model = load_model(ADDER)
    total = 0.0
    for text in texts[0]["sequences"]:
        assert len(text) == 12
        assert (text[0],) == model.bos
        odds = np.exp(model.logits(text[:-1]))
        total -= np.log(odds[range(11), text[1:]] / odds.sum(axis=1)).sum()
    assert texts[0]["nll"] == pytest.approx(total / (6 * 11), rel=1e-9)
    assert (texts[0]["model"], texts[0]["seed"]) == ("adder", 5)
    # Sequences of a seed, and those of the next one, are all different draws.
    drawn = [tuple(text) for number in (0, 2) for text in texts[number]["sequences"]]
    assert len(set(drawn)) == 12


def test_texts_that_cannot_be_sampled(tmp_path: Path) -> None:
    path = tmp_path / "texts.json"
    for options, message in (
        (("--length", 17), "17 tokens; the context of adder has room for 1 to 16"),
        (("--length", 1), "length=1 leaves nothing to sample"),
        (("--length", 12, "--temperature", -1), "temperature=-1.0 must be finite"),
        (("--length", 12, "--sequences", 0), "0 sequences"),
        (("--length", 12, "--seed", -1), "seed=-1 must not be negative"),
    ):
        done = run(ADDER, "-o", path, *options)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
