# SPDX-License-Identifier: Apache-2.0
"""The `accuracy` command, and what it measures with."""

import json
from pathlib import Path

import numpy as np
import pytest

import afternorm.accuracy
from afternorm.accuracy import (
    Accuracy,
    compile_resident,
    decoder_accuracy,
    decoder_reference,
    format_config,
    nll,
    text_losses,
)
from afternorm.accuracy_run import AccuracyResult, read_texts, run_accuracy
from afternorm.checkpoints import Model, load_model, seeded_layer
from afternorm.cli import main
from afternorm.compiler.layer_weights import Schedule
from afternorm.compiler.model import ModelCompiler
from afternorm.config import PRESETS, preset
from afternorm.errors import AfternormError, CheckpointError, ConfigError
from afternorm.golden_batch import GoldenBatch
from afternorm.golden_device import GoldenDevice
from afternorm.inference import Inference
from afternorm.models import ADDER
from afternorm.plots import plot_accuracy
from afternorm.tables import print_accuracy

MODEL = load_model(ADDER)
TINY = preset("tiny")
SUMS = "27+48=75\n1+2=3\n\n60+4=64\n"
TEXTS = [MODEL.encode(line) for line in SUMS.split()]


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    path = tmp_path / "sums.txt"
    path.write_text(SUMS, encoding="utf-8")
    return path


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a wrong command line gets."""
    assert main(["accuracy", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("afternorm: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


# -- what is measured ---------------------------------------------------------------------------


def test_nll(seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 300, (5, 7))
    tokens = [0, 6, 3, 3, 1]
    for row, token, value in zip(logits, tokens, nll(logits, tokens), strict=True):
        assert value == pytest.approx(np.logaddexp.reduce(row) - row[token], rel=1e-12, abs=1e-12)


def test_reference_is_the_models() -> None:
    for text, loss in zip(TEXTS, decoder_reference(MODEL, TEXTS), strict=True):
        assert loss == pytest.approx(nll(MODEL.logits(text)[:-1], text[1:]).mean(), rel=1e-9)


def test_machines_side_by_side_are_as_alone() -> None:
    compiler = ModelCompiler(TINY, MODEL, "deferred", tokens=max(map(len, TEXTS)))
    batch = GoldenBatch(compiler, 2)
    logits = [batch.step([a, b]) for a, b in zip(TEXTS[0], reversed(TEXTS[0]), strict=True)]
    for number, text in enumerate((TEXTS[0], TEXTS[0][::-1])):
        with GoldenDevice(TINY, compiler.image()) as device:
            alone = Inference(compiler, device)
            for token, together in zip(text, logits, strict=True):
                assert np.array_equal(alone.feed([token]), together[number])


def test_batch_refuses_what_is_not_a_token_a_machine() -> None:
    batch = GoldenBatch(ModelCompiler(TINY, MODEL, "deferred", tokens=4), 2)
    with pytest.raises(CheckpointError, match="1 texts for 2 machines"):
        batch.step([1])
    with pytest.raises(CheckpointError, match="token 99 is not in the vocabulary"):
        batch.step([1, 99])


def test_texts_of_different_lengths_are_as_alone() -> None:
    lengths = {len(text) for text in TEXTS}
    assert len(lengths) == 3
    compiler = compile_resident(TINY, MODEL, "deferred", max(lengths))
    together = text_losses(GoldenBatch(compiler, len(TEXTS)), TEXTS)
    for text, loss in zip(TEXTS, together, strict=True):
        assert text_losses(GoldenBatch(compiler, 1), [text])[0] == loss


def test_groups_do_not_change_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = decoder_reference(MODEL, TEXTS)
    done: list[int] = []
    whole = decoder_accuracy(TINY, MODEL, "deferred", TEXTS, reference, done.append)
    monkeypatch.setattr(afternorm.accuracy, "MEMORY", 1)
    single = decoder_accuracy(TINY, MODEL, "deferred", TEXTS, reference, done.append)
    assert single == whole
    assert decoder_reference(MODEL, TEXTS) == pytest.approx(reference, rel=1e-9)
    # Both times it counts up to all predicted tokens.
    assert whole.count == sum(map(len, TEXTS)) - len(TEXTS)
    assert done == sorted(done[: done.index(whole.count) + 1]) + list(range(1, whole.count + 1))


def test_mean_is_over_tokens() -> None:
    reference = decoder_reference(MODEL, TEXTS)
    result = decoder_accuracy(TINY, MODEL, "deferred", TEXTS, reference)
    each = [
        decoder_accuracy(TINY, MODEL, "deferred", [text], reference[number : number + 1])
        for number, text in enumerate(TEXTS)
    ]
    total = sum(one.loss * one.count for one in each)
    assert result.loss == pytest.approx(total / result.count, rel=1e-12)
    assert result.worst == max(one.excess for one in each)
    assert [one.uncertainty for one in each] == [None] * 3
    assert result.uncertainty is not None and result.uncertainty > 0


def test_more_fraction_bits_and_smaller_blocks_lose_less() -> None:
    """Over all sums with one carry: enough tokens to tell."""
    texts = [MODEL.encode(f"{a}+{b}={a + b}") for a in range(15, 95, 5) for b in range(17, 97, 9)]
    result = run_accuracy(
        "tiny", TINY, MODEL, texts, blocks=[8, 32], fractions=[15, 5], schedules=["deferred"]
    )
    spreads = {(a.block, a.fraction_bits): a.uncertainty for a in result.formats if a.uncertainty}
    assert spreads[8, 15] < spreads[32, 15] < spreads[32, 5]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("block", [8, 16, 32])
def test_every_preset_takes_every_block(name: str, block: int) -> None:
    config = preset(name)
    changed = format_config(config, block, 9)
    assert (changed.block, changed.fraction_bits, changed.tiles) == (block, 9, config.tiles)
    assert changed.acc_width >= 2 * block
    assert changed.rows_max >= block
    assert format_config(config, config.block, config.fraction_bits) == config


def test_columns_that_are_no_power_of_two() -> None:
    config = TINY.with_(columns=24, lanes=4, acc_width=48)
    changed = format_config(config, 32, 15)
    assert (changed.columns, changed.lanes, changed.acc_width) == (8, 4, 64)


@pytest.mark.parametrize(("block", "bits"), [(12, 15), (0, 15), (-8, 15), (32, 3), (32, 25)])
def test_impossible_formats(block: int, bits: int) -> None:
    with pytest.raises(ConfigError):
        format_config(TINY, block, bits)


def test_memories_grow_until_the_model_stays() -> None:
    small = TINY.with_(scratchpad_depth=2048)
    assert not ModelCompiler(small, MODEL, "deferred", tokens=8).resident
    compiler = compile_resident(small, MODEL, "deferred", 8)
    assert compiler.resident and compiler.cached
    assert compiler.config.scratchpad_depth > small.scratchpad_depth


def encoder(seed: int) -> Model:
    """One layer of the BERT family with random weights."""
    rng = np.random.default_rng(seed)
    layer = seeded_layer("bert", seed)
    return Model(
        name="seeded",
        arch="bert",
        layers=(layer,),
        embedding=rng.normal(size=(30, layer.dim)),
        positions=rng.normal(size=(16, layer.dim)),
        final_gamma=rng.lognormal(0.0, 0.3, layer.dim),
        final_beta=rng.normal(0.0, 0.1, layer.dim),
        classifier=None,
        context=16,
        tokenizer=None,
        bos=(),
        eos=frozenset(),
    )


def test_encoders(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    model = encoder(seed)
    texts = [[3, 1, 4, 1, 5], [9], [2, 6, 5, 3, 5], [8, 9, 7]]
    result = run_accuracy(
        "tiny", TINY, model, texts, blocks=[8], fractions=[15], schedules=["deferred", "serial"]
    )
    compiler = ModelCompiler(TINY, model, "deferred", tokens=5)
    cosines = []
    for text in texts:
        with GoldenDevice(TINY, compiler.image()) as device:
            embedding = Inference(compiler, device).sentence(text)
        cosines.append(float(embedding @ model.sentence(text)))
    deferred = result.formats[0]
    assert deferred.loss == pytest.approx(1 - np.mean(cosines), rel=1e-6)
    assert deferred.worst == pytest.approx(1 - min(cosines), rel=1e-6)
    assert 0 < deferred.loss < 0.01
    print_accuracy(result)
    assert f"{1 - deferred.worst:.6f}" in capsys.readouterr().out
    content = result.to_dict()
    assert (content["measure"], content["texts"], content["count"]) == ("1 - cosine", 4, 4)
    assert content["formats"][0]["smallest_cosine"] == 1 - deferred.worst


# -- the command --------------------------------------------------------------------------------


def test_command(sums: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers, plot = tmp_path / "numbers.json", tmp_path / "loss.png"
    arguments = ["adder", "--text", str(sums), "--preset", "tiny", "--blocks", "8,16"]
    arguments += ["--fractions", "15", "--json", str(numbers), "--plot", str(plot)]
    assert main(["accuracy", *arguments]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    content = json.loads(numbers.read_text())
    assert (content["model"], content["configuration"]) == ("adder", "tiny")
    assert (content["measure"], content["texts"], content["count"]) == ("nll", 3, 20)
    formats = content["formats"]
    assert [(f["block"], f["fraction_bits"], f["schedule"]) for f in formats] == [
        (8, 15, "deferred"),
        (8, 15, "serial"),
        (16, 15, "deferred"),
        (16, 15, "serial"),
    ]
    for f in formats:
        assert f["perplexity"] == pytest.approx(np.exp(f["nll"]))
        assert f["excess"] == pytest.approx(f["nll"] - content["reference"]["nll"])
        assert f"{f['nll']:.4f}" in printed.out
    first = formats[0]
    reference = decoder_reference(MODEL, TEXTS)
    assert first["loss"] == decoder_accuracy(TINY, MODEL, "deferred", TEXTS, reference).loss
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"sums.txt", "numbers.json", "loss.png"}


def measured(block: int, schedule: Schedule, loss: float) -> Accuracy:
    return Accuracy(
        block=block,
        fraction_bits=15,
        schedule=schedule,
        count=1234,
        loss=loss,
        reference=2.0,
        worst=0.5,
        uncertainty=0.0625,
        flags=[],
    )


RESULT = AccuracyResult(
    model="model_$1",
    configuration="tiny",
    decodes=True,
    texts=5,
    count=1234,
    reference=2.0,
    formats=[
        measured(32, "deferred", 2.5),
        measured(32, "serial", 2.25),
        measured(16, "deferred", 2.125),
        measured(16, "serial", 1.75),
        measured(8, "serial", 2.125),
        measured(8, "deferred", 1.875),
    ],
)


def test_ratio() -> None:
    assert [RESULT.ratio(accuracy) for accuracy in RESULT.formats] == [
        2.0,
        1.0,
        None,
        None,
        1.0,
        None,
    ]


def test_plot_as_svg(tmp_path: Path) -> None:
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    plot_accuracy(RESULT, first)
    plot_accuracy(RESULT, second)
    text = first.read_text()
    assert text.startswith("<?xml") and text.rstrip().endswith("</svg>")
    for words in ("model_$1, 1,234 tokens, accelerator tiny", "deferred", "serial (conventional)"):
        assert f"<!-- {words} -->" in text
    assert first.read_bytes() == second.read_bytes()


def test_sampled_texts(tmp_path: Path) -> None:
    path = tmp_path / "texts.json"
    path.write_text(json.dumps({"model": "adder", "sequences": TEXTS}))
    assert read_texts(path, MODEL) == TEXTS
    assert read_texts(path, MODEL, limit=2, length=5) == [text[:5] for text in TEXTS[:2]]


def test_plain_texts(sums: Path) -> None:
    assert read_texts(sums, MODEL) == TEXTS
    assert read_texts(sums, MODEL, limit=1) == TEXTS[:1]


LONG = MODEL.context + 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no text"),
        ("\n \n", "has no text"),
        ("1+2=3\n1*2=2\n", r"line 2: .*cannot encode"),
        ("\n" + LONG * "1", rf"line 2: {LONG + 1} tokens; the context of adder has room for "),
        (b"\xff\xfe", "no text in UTF-8"),
        ("{1+2", "no JSON of scripts/sample_text.py"),
        ("{}", "must be lists of tokens"),
        ('{"sequences": [[1, true]]}', "must be lists of tokens"),
        ('{"model": "other", "sequences": [[1, 2]]}', "sampled from 'other', not from 'adder'"),
        ('{"model": "adder", "sequences": []}', "has no text"),
        ('{"model": "adder", "sequences": [[1, 2], [1, 77]]}', "sequence 1: token 77 is not in"),
        ('{"model": "adder", "sequences": [[1]]}', "sequence 0: a text of 1 tokens"),
    ],
)
def test_bad_texts(content: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "texts"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(AfternormError, match=message):
        read_texts(path, MODEL)


def test_bad_command_lines(sums: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = ["adder", "--text", str(sums)]
    assert "--text" in fails(capsys, "adder")
    assert "no such file" in fails(capsys, "adder", "--text", str(tmp_path / "none")).lower()
    assert "no such file" in fails(capsys, "missing", "--text", str(sums))
    assert "block must be one of" in fails(capsys, *text, "--blocks", "8,12")
    assert "fraction_bits must be 4 to 24" in fails(capsys, *text, "--fractions", "15,30")
    assert "'8;16' is no list" in fails(capsys, *text, "--blocks", "8;16")
    assert "unknown schedule 'none'" in fails(capsys, *text, "--schedules", "none")
    assert "length=1 leaves nothing" in fails(capsys, *text, "--length", "1")
    assert "0 is less than 1" in fails(capsys, *text, "--limit", "0")
    for plot in (tmp_path / "loss.pdf", tmp_path / "none" / "loss.png"):
        assert "--plot: " in fails(capsys, *text, "--plot", str(plot))
    assert [path.name for path in tmp_path.iterdir()] == ["sums.txt"]
