# SPDX-License-Identifier: Apache-2.0
"""llama2.c checkpoints and tokenizers, whole and broken."""

import struct
from pathlib import Path

import numpy as np
import pytest

from afternorm.checkpoints import MODELS_VARIABLE, Model, find_checkpoint, load_model
from afternorm.checkpoints.llama2c import load_checkpoint, load_tokenizer
from afternorm.errors import CheckpointError

DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCABULARY, CONTEXT = 8, 12, 2, 2, 1, 6, 16
SIZES = (
    VOCABULARY * DIM,
    LAYERS * DIM,
    LAYERS * DIM * DIM,
    LAYERS * 4 * DIM,
    LAYERS * 4 * DIM,
    LAYERS * DIM * DIM,
    LAYERS * DIM,
    LAYERS * HIDDEN * DIM,
    LAYERS * DIM * HIDDEN,
    LAYERS * HIDDEN * DIM,
    DIM,
    CONTEXT * 2,
    CONTEXT * 2,
)


def header(**changes: int) -> bytes:
    values = {
        "dim": DIM,
        "hidden": HIDDEN,
        "layers": LAYERS,
        "heads": HEADS,
        "kv_heads": KV_HEADS,
        "vocabulary": VOCABULARY,
        "context": CONTEXT,
    } | changes
    return struct.pack("<7i", *values.values())


def tensors(extra: int = 0) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.normal(size=sum(SIZES) + extra).astype("<f4")


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load_checkpoint(write(tmp_path / "m.bin", header() + tensors().tobytes()))


def test_tensors_are_where_they_belong(model: Model) -> None:
    values = tensors().astype(np.float64)
    starts = np.cumsum((0, *SIZES))
    np.testing.assert_array_equal(model.embedding.ravel(), values[: starts[1]])
    assert model.classifier is model.embedding
    order = ["norm1.gamma", "wq", "wk", "wv", "wo", "norm2.gamma", "w_gate", "w_down", "w_up"]
    for number, name in enumerate(order):
        stored = np.stack([layer.weights[name] for layer in model.layers])
        expected = values[starts[number + 1] : starts[number + 2]]
        np.testing.assert_array_equal(stored.ravel(), expected, err_msg=name)
    np.testing.assert_array_equal(model.final_gamma, values[starts[10] : starts[11]])
    assert (model.layers[0].head_dim, model.layers[0].hidden, model.context) == (4, 12, 16)
    assert (model.name, model.arch, model.dim, model.vocabulary) == ("m", "llama", 8, 6)
    assert (model.bos, model.eos, model.tokenizer) == ((1,), {1, 2}, None)


def test_an_untied_classifier(tmp_path: Path) -> None:
    data = header(vocabulary=-VOCABULARY) + tensors(VOCABULARY * DIM).tobytes()
    model = load_checkpoint(write(tmp_path / "m.bin", data))
    np.testing.assert_array_equal(
        model.classifier.ravel(), tensors(VOCABULARY * DIM)[-VOCABULARY * DIM :]
    )
    assert model.logits([1, 2]).shape == (2, VOCABULARY)


def test_a_truncated_file_says_how_much_is_missing(tmp_path: Path) -> None:
    data = header() + tensors().tobytes()
    for length in (len(data) - 1, len(data) // 2, 28):
        path = write(tmp_path / "m.bin", data[:length])
        with pytest.raises(CheckpointError, match=f"{len(data)} bytes, the file has {length}"):
            load_checkpoint(path)
    with pytest.raises(CheckpointError, match="header has 28 bytes, the file 10"):
        load_checkpoint(write(tmp_path / "m.bin", data[:10]))
    with pytest.raises(CheckpointError, match="another format"):
        load_checkpoint(write(tmp_path / "m.bin", data + b"\0"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("position", "name"), [(0, "token_embedding"), (48 + 16 + 5, "wq"), (-1, "rope_imaginary")]
)
def test_values_that_are_not_finite(tmp_path: Path, bad: float, position: int, name: str) -> None:
    values = tensors()
    values[position] = bad
    path = write(tmp_path / "m.bin", header() + values.tobytes())
    with pytest.raises(CheckpointError, match=f"{name} has values that are not finite"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"dim": 0},
        {"dim": -8},
        {"heads": 3},
        {"kv_heads": 0},
        {"heads": 2, "kv_heads": 4},
        {"layers": 1 << 30},
        {"vocabulary": 0},
        {"heads": 8, "kv_heads": 8},
    ],
)
def test_impossible_headers(tmp_path: Path, changes: dict[str, int]) -> None:
    path = write(tmp_path / "m.bin", header(**changes) + tensors().tobytes())
    with pytest.raises(CheckpointError, match="or a broken one: dim="):
        load_checkpoint(path)


def test_other_formats(tmp_path: Path) -> None:
    versioned = struct.pack("<7i", 0x616B3432, 2, 0, 0, 0, 0, 0)
    with pytest.raises(CheckpointError, match="version 2"):
        load_checkpoint(write(tmp_path / "m.bin", versioned))
    with pytest.raises(CheckpointError, match=r"no llama2\.c checkpoint"):
        load_checkpoint(write(tmp_path / "m.bin", b"PK\x03\x04" + bytes(100)))
    with pytest.raises(CheckpointError, match="cannot read"):
        load_checkpoint(tmp_path / "absent.bin")
    with pytest.raises(CheckpointError, match="cannot read"):
        load_checkpoint(tmp_path)


def test_tokens_that_do_not_fit(model: Model) -> None:
    model.layer_input([1] * CONTEXT, LAYERS)
    with pytest.raises(CheckpointError, match=r"17 tokens; .* room for 1 to 16"):
        model.layer_input([1] * (CONTEXT + 1), 0)
    with pytest.raises(CheckpointError, match="0 tokens"):
        model.embed([])
    with pytest.raises(CheckpointError, match="token 6 is not in the vocabulary of 6"):
        model.embed([1, 6])
    with pytest.raises(CheckpointError, match="no layer 3: the model has 2"):
        model.layer_input([1], 3)
    np.testing.assert_array_equal(model.embed([1], CONTEXT - 1), model.embedding[[1]])
    with pytest.raises(CheckpointError, match=r"2 tokens after 15; .* room for 1 to 1 more"):
        model.embed([1, 1], CONTEXT - 1)
    with pytest.raises(CheckpointError, match="no position -1"):
        model.embed([1], -1)


def tokenizer_bytes(tokens: list[bytes]) -> bytes:
    parts = [struct.pack("<fi", -float(i), len(t)) + t for i, t in enumerate(tokens)]
    return struct.pack("<i", max(map(len, tokens))) + b"".join(parts)


TOKENS = [b"<unk>", b"<s>", b"</s>", b" ", b"a", b"b", b"ab", b" a", b"bb"]


def test_merges_by_score(tmp_path: Path) -> None:
    path = write(tmp_path / "t.bin", tokenizer_bytes(TOKENS))
    tokenizer = load_tokenizer(path, len(TOKENS))
    assert tokenizer.encode("abb") == [1, 3, 6, 5]  # "ab" before " a"
    assert tokenizer.decode([1, 3, 6, 5]) == "abb"
    assert tokenizer.encode("") == [1]


def test_broken_tokenizers(tmp_path: Path) -> None:
    data = tokenizer_bytes(TOKENS)
    with pytest.raises(CheckpointError, match="truncated: token 8 of 9"):
        load_tokenizer(write(tmp_path / "t.bin", data[:-9]), 9)
    with pytest.raises(CheckpointError, match="token 8 has length 2"):
        load_tokenizer(write(tmp_path / "t.bin", data[:-1]), 9)
    with pytest.raises(CheckpointError, match="more than 8 tokens: 10 bytes are left"):
        load_tokenizer(write(tmp_path / "t.bin", data), 8)
    broken = data[:8] + struct.pack("<i", -1) + data[12:]
    with pytest.raises(CheckpointError, match="token 0 has length -1"):
        load_tokenizer(write(tmp_path / "t.bin", broken), 9)


def test_text_that_has_no_tokens(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write(tmp_path / "t.bin", tokenizer_bytes(TOKENS)), len(TOKENS))
    with pytest.raises(CheckpointError, match="no tokens for all bytes of 'abc'"):
        tokenizer.encode("abc")
    with pytest.raises(CheckpointError, match=r"'\\udcff' at position 1 is no Unicode character"):
        tokenizer.encode("a\udcff")
    for token in (-1, 9):
        with pytest.raises(CheckpointError, match=f"token {token} is not in the vocabulary of 9"):
            tokenizer.decode([1, token])


WORDS = [b"<unk>", b"<s>", b"</s>", b" ", b"a", b"b"]


def test_the_tokenizer_beside_a_model(tmp_path: Path) -> None:
    path = write(tmp_path / "m.bin", header() + tensors().tobytes())
    with pytest.raises(CheckpointError, match="m has no tokenizer beside it"):
        load_model(path).encode("a")
    # A common one of another size belongs to another model ...
    write(tmp_path / "tokenizer.bin", tokenizer_bytes(TOKENS))
    assert load_model(path).tokenizer is None
    write(tmp_path / "tokenizer.bin", tokenizer_bytes(WORDS))
    assert load_model(path).encode("ab") == [1, 3, 4, 5]
    # ... and one with the model's number in its name goes before it.
    write(tmp_path / "tok6.bin", tokenizer_bytes([*WORDS[:4], b"b", b"a"]))
    model = load_model(path)
    assert model.encode("ab") == [1, 3, 5, 4]
    assert model.decode([1, 3, 5, 4]) == "ab"
    named = write(tmp_path / "named.bin", tokenizer_bytes(WORDS))
    assert load_model(path, named).encode("ab") == [1, 3, 4, 5]
    with pytest.raises(CheckpointError, match="holds more than 6 tokens"):
        load_model(path, write(named, tokenizer_bytes(TOKENS)))
    with pytest.raises(CheckpointError, match="there is no such file or folder"):
        load_model(tmp_path / "absent.bin")


def test_decoders_do_not_embed_texts(model: Model) -> None:
    with pytest.raises(CheckpointError, match="m is a decoder"):
        model.sentence([1])


def test_the_real_model_goes_on_as_it_should() -> None:
    checkpoint, words = find_checkpoint("stories260K.bin"), find_checkpoint("tok512.bin")
    if checkpoint is None or words is None:
        pytest.skip(f"{MODELS_VARIABLE} names no folder with stories260K.bin and tok512.bin")
    model = load_model(checkpoint)
    tokenizer = load_tokenizer(words, model.vocabulary)
    assert model.tokenizer == tokenizer
    text = "Once upon a time, there was a little girl named Lily. She loved to play"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode("café 猫")) == "café 猫"
    assert tokenizer.decode(model.greedy([1], 32)).startswith(text)
