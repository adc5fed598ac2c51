# SPDX-License-Identifier: Apache-2.0
"""Checkpoints and tokenizers of llama2.c (version 0).

A checkpoint is seven little-endian int32 (dim, hidden_dim, n_layers, n_heads,
n_kv_heads, vocab_size, seq_len; a negative vocab_size says that the classifier
does not share the embedding), then float32 tensors.  A tokenizer is an int32
(the longest token), then a float32 score, an int32 length and bytes per token.
"""

import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from afternorm.checkpoints.layer import Layer
from afternorm.checkpoints.model import Model, check_ids, check_text
from afternorm.errors import CheckpointError

EPS = 1e-5
BOS, EOS = 1, 2
"""Either ends a text: in training, BOS of the next one follows."""
_BYTES = 3
"""Id of the token of byte 0; ids below are unknown, begin and end of a text."""
_HEADER = struct.Struct("<7i")
_VERSIONED = 0x616B3432
"""What files of version 1 and later start with ("ak42")."""
_DIM_MAX = 1 << 20


def load_file(path: Path, tokenizer: Path | None = None) -> Model:
    """Read a checkpoint with its tokenizer.

    Without a tokenizer's path, `tokN.bin` beside it is read, N the size of the vocabulary;
    else a `tokenizer.bin` beside it, if it has N tokens.

    Raises
    ------
    CheckpointError
        As `load_checkpoint` and `load_tokenizer`.
    """
    model = load_checkpoint(path)
    own = path.with_name(f"tok{model.vocabulary}.bin")
    common = path.with_name("tokenizer.bin")
    words: Tokenizer | None = None
    if tokenizer is not None or own.is_file():
        words = load_tokenizer(tokenizer or own, model.vocabulary)
    elif common.is_file():
        # One of another size belongs to another model.
        with suppress(CheckpointError):
            words = load_tokenizer(common, model.vocabulary)
    return replace(model, tokenizer=words)


def load_checkpoint(path: Path) -> Model:
    """Read a version 0 checkpoint, without a tokenizer.

    Raises
    ------
    CheckpointError
        If the file cannot be read, has another format or length, or a weight is not finite.
    """
    data = _read(path)
    if len(data) < _HEADER.size:
        raise CheckpointError(
            f"{path} is truncated: the header has {_HEADER.size} bytes, the file {len(data)}"
        )
    header = _HEADER.unpack_from(data)
    if header[0] == _VERSIONED:
        raise CheckpointError(
            f"{path} is a llama2.c checkpoint of version {header[1]}; export it as version 0"
        )
    dim, hidden, layers, heads, kv_heads, vocabulary, context = header
    shared, vocabulary = vocabulary > 0, abs(vocabulary)
    good = all(0 < value <= _DIM_MAX for value in (dim, hidden, layers, heads, kv_heads, context))
    good = good and 0 < vocabulary <= _DIM_MAX and dim % heads == 0 and heads % kv_heads == 0
    if not good or (dim // heads) % 2:
        raise CheckpointError(
            f"{path} is no llama2.c checkpoint, or a broken one: dim={dim}, hidden_dim={hidden}, "
            f"n_layers={layers}, n_heads={heads}, n_kv_heads={kv_heads}, "
            f"vocab_size={header[5]}, seq_len={context}"
        )
    head_dim = dim // heads
    narrow = kv_heads * head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "token_embedding": (vocabulary, dim),
        "rms_att": (layers, dim),
        "wq": (layers, dim, dim),
        "wk": (layers, narrow, dim),
        "wv": (layers, narrow, dim),
        "wo": (layers, dim, dim),
        "rms_ffn": (layers, dim),
        "w1": (layers, hidden, dim),
        "w2": (layers, dim, hidden),
        "w3": (layers, hidden, dim),
        "rms_final": (dim,),
        "rope_real": (context, head_dim // 2),
        "rope_imaginary": (context, head_dim // 2),
    }
    if not shared:
        shapes["classifier"] = (vocabulary, dim)
    expected = _HEADER.size + 4 * sum(int(np.prod(shape)) for shape in shapes.values())
    if len(data) != expected:
        what = "is truncated" if len(data) < expected else "has another format"
        raise CheckpointError(
            f"{path} {what}: its header asks for {expected} bytes, the file has {len(data)}"
        )
    tensors = {}
    offset = _HEADER.size
    for name, shape in shapes.items():
        count = int(np.prod(shape))
        tensor = np.frombuffer(data, "<f4", count, offset).reshape(shape).astype(np.float64)
        offset += 4 * count
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name} has values that are not finite")
        tensors[name] = tensor
    names = {
        "norm1.gamma": "rms_att",
        "wq": "wq",
        "wk": "wk",
        "wv": "wv",
        "wo": "wo",
        "norm2.gamma": "rms_ffn",
        "w_gate": "w1",
        "w_up": "w3",
        "w_down": "w2",
    }
    return Model(
        name=path.stem,
        arch="llama",
        layers=tuple(
            Layer(
                "llama",
                heads,
                kv_heads,
                EPS,
                {name: tensors[source][number] for name, source in names.items()},
            )
            for number in range(layers)
        ),
        embedding=tensors["token_embedding"],
        positions=None,
        final_gamma=tensors["rms_final"],
        final_beta=None,
        classifier=tensors["token_embedding" if shared else "classifier"],
        context=context,
        tokenizer=None,
        bos=(BOS,),
        eos=frozenset((BOS, EOS)),
    )


@dataclass(frozen=True)
class Tokenizer:
    """A byte-pair encoding.

    Attributes
    ----------
    tokens : the bytes of every token; a space begins a word.
    scores : the better of two merges has the higher score.
    """

    tokens: tuple[bytes, ...]
    scores: tuple[float, ...]

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        return {token: number for number, token in reversed(list(enumerate(self.tokens)))}

    def encode(self, text: str) -> list[int]:
        """Ids of a text, BOS first: characters, then the best merges (Sennrich et al., 2016).

        Raises
        ------
        CheckpointError
            If the tokenizer lacks the byte of a character that it does not have, or the text
            is not Unicode.
        """
        check_text(text)
        ids: list[int] = []
        for character in f" {text}" if text else "":
            token = character.encode()
            if token in self._ids:
                ids.append(self._ids[token])
            else:
                ids += [byte + _BYTES for byte in token]
        if any(number >= len(self.tokens) for number in ids):
            raise CheckpointError(f"the tokenizer has no tokens for all bytes of {text!r}")
        while True:
            best, position = -np.inf, -1
            for i in range(len(ids) - 1):
                merged = self._ids.get(self.tokens[ids[i]] + self.tokens[ids[i + 1]], -1)
                if merged >= 0 and self.scores[merged] > best:
                    best, position, token_id = self.scores[merged], i, merged
            if position < 0:
                return [BOS, *ids]
            ids[position : position + 2] = [token_id]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without BOS and EOS.

        Raises
        ------
        CheckpointError
            If an id is not in the vocabulary.
        """
        check_ids(ids, len(self.tokens))
        pieces = []
        for number in ids:
            if number in (BOS, EOS):
                continue
            piece = self.tokens[number]
            if len(piece) == 6 and piece.startswith(b"<0x") and piece.endswith(b">"):
                piece = bytes([int(piece[3:5], 16)])
            pieces.append(piece)
        return b"".join(pieces).decode(errors="replace").removeprefix(" ")


def load_tokenizer(path: Path, vocabulary: int) -> Tokenizer:
    """Read a tokenizer of so many tokens.

    Raises
    ------
    CheckpointError
        If the file cannot be read, or does not hold `vocabulary` tokens and nothing else.
    """
    data = _read(path)
    tokens, scores = [], []
    offset = 4
    for number in range(vocabulary):
        if offset + 8 > len(data):
            raise CheckpointError(
                f"{path} is truncated: token {number} of {vocabulary} needs bytes "
                f"{offset} to {offset + 7}, the file has {len(data)} bytes"
            )
        score, length = struct.unpack_from("<fi", data, offset)
        offset += 8
        if length < 0 or offset + length > len(data) or not np.isfinite(score):
            raise CheckpointError(
                f"{path}: token {number} has length {length} and score {score}; "
                f"the file has {len(data)} bytes"
            )
        tokens.append(data[offset : offset + length])
        scores.append(score)
        offset += length
    if offset != len(data):
        raise CheckpointError(
            f"{path} holds more than {vocabulary} tokens: {len(data) - offset} bytes are left"
        )
    return Tokenizer(tuple(tokens), tuple(scores))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
