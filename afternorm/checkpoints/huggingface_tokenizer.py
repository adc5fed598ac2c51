# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of Hugging Face models: `tokenizer.json`, by the `tokenizers` library."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Encoding
from tokenizers import Tokenizer as Library

from afternorm.checkpoints.model import check_text
from afternorm.checkpoints.tensors import read_json
from afternorm.errors import CheckpointError


class HuggingFaceTokenizer:
    """A tokenizer with the special tokens that its file tells it to put around a text.

    Parameters
    ----------
    path : of the `tokenizer.json`.
    strict : refuse what is not in the vocabulary.  Otherwise it becomes the unknown token,
        which encoders know from their training.

    Raises
    ------
    CheckpointError
        If the file cannot be read or is no tokenizer.
    """

    def __init__(self, path: Path, *, strict: bool) -> None:
        state = read_json(path)
        try:
            self._library = Library.from_file(str(path))
        except Exception as error:  # the library raises nothing more special
            raise CheckpointError(f"{path} is no tokenizer: {_line(error)}") from error
        # Both belong to batches of one training run, not to the vocabulary.
        self._library.no_truncation()
        self._library.no_padding()
        self._strict = strict
        model = state["model"]
        unknown = model.get("unk_token")
        self._unknown = (
            model.get("unk_id") if unknown is None else self._library.token_to_id(unknown)
        )

    def encode(self, text: str) -> list[int]:
        """Ids of a text, special tokens included.

        Raises
        ------
        CheckpointError
            If a part of it has no token, and the tokenizer is strict; or it is not Unicode.
        """
        check_text(text)
        try:
            encoding = self._library.encode(text)
        except Exception as error:  # the library raises nothing more special
            raise CheckpointError(
                f"the tokenizer cannot encode {text!r}: {_line(error)}"
            ) from error
        if self._strict:
            self._check(text, encoding)
        return list(encoding.ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens.

        Raises
        ------
        CheckpointError
            If there is no such token.
        """
        for token in ids:
            if token < 0 or self._library.id_to_token(token) is None:
                raise CheckpointError(f"the tokenizer has no token {token}")
        return str(self._library.decode(list(ids)))

    def _check(self, text: str, encoding: Encoding) -> None:
        covered = bytearray(len(text))
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token == self._unknown and end > start:
                raise CheckpointError(
                    f"the tokenizer cannot encode {text[start:end]!r} in {text!r}"
                )
            covered[start:end] = b"\1" * (end - start)
        # A byte-pair encoding without an unknown token drops what it does not know.
        for character, found in zip(text, covered, strict=True):
            if not found and not character.isspace():
                raise CheckpointError(f"the tokenizer cannot encode {character!r} in {text!r}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
