# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of Hugging Face folders; those of llama2.c are in test_llama2c.py."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from afternorm.checkpoints.huggingface_tokenizer import HuggingFaceTokenizer
from afternorm.errors import CheckpointError


def save(tokenizer: Tokenizer, folder: Path) -> Path:
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def bert(folder: Path) -> Path:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "hello", "wor", "##ld", "!"]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(words[:4])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    return save(tokenizer, folder)


def gpt2(folder: Path, **options: Any) -> Path:
    """Bytes of ASCII only, so that others are missing."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(x for x in letters if ord(x) < 128)}
    vocabulary |= {"Ġ": len(vocabulary), "ab": len(vocabulary) + 1}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("a", "b")], **options))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return save(tokenizer, folder)


def test_an_encoder_knows_the_unknown(tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(bert(tmp_path), strict=False)
    # Neither cut to 4 tokens nor padded to 16, as the file says for batches.
    assert tokenizer.encode("Hello WORLD hello!") == [2, 4, 5, 6, 4, 7, 3]
    assert tokenizer.encode("hello cat") == [2, 4, 1, 3]
    assert tokenizer.encode("") == [2, 3]
    assert tokenizer.decode([2, 4, 5, 6, 7, 3]) == "hello world!"


def test_a_strict_one_does_not(tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(bert(tmp_path), strict=True)
    assert tokenizer.encode("hello world") == [2, 4, 5, 6, 3]
    with pytest.raises(CheckpointError, match="cannot encode 'cat' in 'hello cat'"):
        tokenizer.encode("hello cat")


def test_bytes(tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(gpt2(tmp_path), strict=True)
    for text in ("abba ab", " b  a", "x+y=1", ""):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("abba ab")) == 5
    # Without a token for what is unknown, the library drops it silently.
    with pytest.raises(CheckpointError, match="cannot encode 'é' in 'café'"):
        tokenizer.encode("café")


def test_text_that_is_not_unicode(tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(gpt2(tmp_path), strict=True)
    with pytest.raises(CheckpointError, match=r"'\\udcff' at position 1 is no Unicode"):
        tokenizer.encode("a\udcff")


def test_tokens_that_do_not_exist(tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(bert(tmp_path), strict=False)
    for token in (8, -1):
        with pytest.raises(CheckpointError, match=f"has no token {token}"):
            tokenizer.decode([4, token])


def test_a_word_list_without_an_unknown_token(tmp_path: Path) -> None:
    path = save(Tokenizer(models.WordLevel({"a": 0}, unk_token="<unk>")), tmp_path)
    tokenizer = HuggingFaceTokenizer(path, strict=True)
    assert tokenizer.encode("a") == [0]
    with pytest.raises(CheckpointError, match="cannot encode 'b': WordLevel") as caught:
        tokenizer.encode("b")
    assert "\n" not in str(caught.value)


def test_files_that_are_no_tokenizers(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    for content, message in (
        ("{}", "is no tokenizer"),
        ('{"version": "1.0"', "is not JSON"),
        (json.dumps({"version": "1.0", "model": {"type": "Other"}}), "is no tokenizer"),
    ):
        path.write_text(content)
        with pytest.raises(CheckpointError, match=message) as caught:
            HuggingFaceTokenizer(path, strict=True)
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="cannot read"):
        HuggingFaceTokenizer(tmp_path / "absent.json", strict=True)
