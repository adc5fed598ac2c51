# SPDX-License-Identifier: Apache-2.0
"""The embedded model: what is in the repository, and how well it adds."""

import pytest

from afternorm.checkpoints import load_model
from afternorm.checkpoints.decoder import continue_greedily
from afternorm.errors import CheckpointError
from afternorm.models import ADDER


def test_its_files_are_small() -> None:
    names = {path.name for path in ADDER.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json"}
    assert sum(path.stat().st_size for path in ADDER.iterdir()) <= 1 << 20


def test_all_sums_of_two_digits() -> None:
    model = load_model(ADDER)
    pairs = [(a, b) for a in range(100) for b in range(100)]
    answers = continue_greedily(model, [model.encode(f"{a}+{b}=") for a, b in pairs], most=4)
    wrong = [
        f"{a}+{b}={model.decode(answer)}"
        for answer, (a, b) in zip(answers, pairs, strict=True)
        if answer[-1] not in model.eos or model.decode(answer) != str(a + b)
    ]
    assert not wrong, wrong[:10]


def test_its_words() -> None:
    model = load_model(ADDER)
    assert model.encode("27+48=") == [12, 2, 7, 10, 4, 8, 11]
    assert model.bos == (12,)
    assert model.eos == {13}
    assert model.decode([12, 7, 5, 13]) == "75"
    for text in ("27-48=", "2 + 3=", "a", "1\n"):
        with pytest.raises(CheckpointError, match="cannot encode"):
            model.encode(text)
