# SPDX-License-Identifier: Apache-2.0
"""What the arithmetic costs whole models, on the golden machine: the issue's targets."""

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from afternorm.accuracy import (
    Accuracy,
    compile_resident,
    decoder_accuracy,
    decoder_reference,
    encoder_distances,
    encoder_reference,
)
from afternorm.checkpoints import Model, find_checkpoint, load_model
from afternorm.checkpoints.decoder import continue_greedily
from afternorm.compiler.layer_weights import Schedule
from afternorm.compiler.model import ModelCompiler
from afternorm.config import preset
from afternorm.golden_batch import GoldenBatch
from afternorm.models import ADDER

ROOT = Path(__file__).parents[2]
SENTENCES = ROOT / "tests" / "data" / "sentences.txt"
MEDIUM = preset("medium")
STORIES = "stories260K.bin"

SCHEDULES: tuple[Schedule, ...] = ("deferred", "serial")
RATIO = 1.25
"""Deferred may lose this much more than conventional normalization at most."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices are small, and threads of a BLAS would wait for each other."""
    with threadpool_limits(limits=1):
        yield


# -- the adder ----------------------------------------------------------------------------------


def greedy(compiler: ModelCompiler, prompts: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """What `continue_greedily` does, on golden machines: prompts of one length."""
    eos = compiler.model.eos
    batch = GoldenBatch(compiler, len(prompts))
    for tokens in zip(*prompts, strict=True):
        logits = batch.step(tokens)
    answers: list[list[int]] = [[] for _ in prompts]
    for count in range(most):
        tokens = logits.argmax(axis=1).tolist()
        for answer, token in zip(answers, tokens, strict=True):
            if not answer or answer[-1] not in eos:
                answer.append(token)
        if count < most - 1:
            logits = batch.step(tokens)
    return answers


def right_sums(pairs: Sequence[tuple[int, int]], together: int) -> tuple[int, int]:
    """How many sums float64 and the golden machine get right."""
    model = load_model(ADDER)
    prompts = [model.encode(f"{a}+{b}=") for a, b in pairs]
    most = 4
    compiler = ModelCompiler(
        preset("small"), model, "deferred", tokens=max(map(len, prompts)) + most
    )
    answers: list[list[int]] = [[] for _ in pairs]
    for length in sorted({len(prompt) for prompt in prompts}):
        members = [n for n, prompt in enumerate(prompts) if len(prompt) == length]
        for first in range(0, len(members), together):
            some = members[first : first + together]
            for number, answer in zip(
                some, greedy(compiler, [prompts[n] for n in some], most), strict=True
            ):
                answers[number] = answer

    def right(answers: list[list[int]]) -> int:
        return sum(
            answer[-1] in model.eos and model.decode(answer) == str(a + b)
            for answer, (a, b) in zip(answers, pairs, strict=True)
        )

    counts = right(continue_greedily(model, prompts, most)), right(answers)
    print(f"right of {len(pairs)}: float {counts[0]}, golden {counts[1]}")
    return counts


def test_adder_some_sums(seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = rng.choice(10_000, size=500, replace=False).tolist()
    in_float, golden = right_sums([divmod(number, 100) for number in numbers], together=500)
    assert in_float >= 0.99 * len(numbers)
    assert golden >= 0.98 * len(numbers)


@pytest.mark.slow
def test_adder_all_sums() -> None:
    in_float, golden = right_sums([divmod(n, 100) for n in range(10_000)], together=1000)
    assert in_float >= 9900
    assert abs(golden - in_float) <= 50


# -- stories260K --------------------------------------------------------------------------------


def stories() -> Model:
    path = find_checkpoint(STORIES)
    if path is None:
        pytest.skip(f"{STORIES} is not in the folder that AFTERNORM_MODELS names")
    return load_model(path)


def sampled(model: Model, sequences: int, length: int) -> list[list[int]]:
    """Texts as of scripts/sample_text.py, which is no package."""
    spec = importlib.util.spec_from_file_location(
        "sample_text", ROOT / "scripts" / "sample_text.py"
    )
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    texts: list[list[int]] = script.sample(model, sequences, length, temperature=0.8, seed=0)[0]
    return texts


def losses(model: Model, texts: Sequence[Sequence[int]]) -> dict[Schedule, Accuracy]:
    reference = decoder_reference(model, texts)
    results = {
        schedule: decoder_accuracy(MEDIUM, model, schedule, texts, reference)
        for schedule in SCHEDULES
    }
    for schedule, result in results.items():
        print(
            f"{schedule}: {result.count} tokens, NLL {result.loss:.5f}, float64's "
            f"{result.reference:.5f}, excess {result.excess:.5f} +- {result.uncertainty:.5f}"
        )
    return results


def test_stories_loss_of_some_tokens() -> None:
    model = stories()
    for result in losses(model, sampled(model, 8, 32)).values():
        assert result.count == 8 * 31
        # So few tokens: the standard error is as large as the excess.
        assert 0 < abs(result.excess) <= 0.05
        assert result.flags == []


@pytest.mark.slow
def test_stories_loss() -> None:
    model = stories()
    results = losses(model, sampled(model, 48, 256))
    assert results["deferred"].count >= 10_000
    assert results["deferred"].excess <= 0.015
    assert results["deferred"].excess <= RATIO * results["serial"].excess


# -- MiniLM -------------------------------------------------------------------------------------

CLOSE = 0.0015
"""1 - cosine of a text that is near enough."""


def distances(folder: Path, sentences: Sequence[str], schedule: Schedule) -> np.ndarray:
    model = load_model(folder)
    texts = [model.encode(sentence) for sentence in sentences]
    compiler = compile_resident(MEDIUM, model, schedule, max(map(len, texts)))
    result, flags = encoder_distances(compiler, texts, encoder_reference(model, texts))
    print(
        f"{schedule}: {len(texts)} sentences, mean cosine {1 - result.mean():.5f}, "
        f"smallest {1 - result.max():.5f}, {(result > CLOSE).sum()} below {1 - CLOSE}"
    )
    assert flags == []
    return result


def test_minilm_of_some_sentences(minilm: Path) -> None:
    sentences = SENTENCES.read_text(encoding="utf-8").splitlines()[19:27]
    assert distances(minilm, sentences, "deferred").max() <= CLOSE


@pytest.mark.slow
def test_minilm(minilm: Path) -> None:
    sentences = SENTENCES.read_text(encoding="utf-8").splitlines()
    model = load_model(minilm)
    short = np.array([len(model.encode(sentence)) <= 16 for sentence in sentences])
    deferred, serial = (distances(minilm, sentences, schedule) for schedule in SCHEDULES)
    assert len(sentences) >= 100
    assert deferred.mean() <= 0.001
    assert deferred.mean() <= RATIO * serial.mean()
    assert (deferred[short] <= CLOSE).sum() >= 20
    # Texts of a word or two are embedded by a few large numbers, and are coarser under both.
    assert (deferred > CLOSE).sum() <= 3
    assert deferred.max() <= 0.005
