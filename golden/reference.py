# SPDX-License-Identifier: Apache-2.0
"""Transformer layers in float64, written the conventional way: what accuracy is judged by.

Normalization comes first, softmax subtracts its maximum, nothing is folded.
Each layer returns its intermediate results too, so that every product of the
accelerator can be judged by itself.

Weights are float64 arrays by name, ``[out, in]`` as in PyTorch: ``wq wk wv wo``,
``norm1.gamma norm2.gamma``, for LLaMA ``w_gate w_up w_down``, for the others
``w_up w_down``, ``norm1.beta norm2.beta`` and the biases ``bq bk bv bo b_up b_down``.
"""

from collections.abc import Callable, Mapping
from math import erf
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Weights = Mapping[str, Floats]
Activation = Literal["gelu", "gelu_tanh"]


class Results(NamedTuple):
    """Intermediate results and output of a layer, ``[tokens, features]`` each.

    `q` and `k` are those whose product is the scores (rotated, not scaled), heads side by
    side; `attention` is what the output projection multiplies; `residual` is the sum after
    the attention; `hidden` is what the last projection multiplies.
    """

    q: Floats
    k: Floats
    v: Floats
    attention: Floats
    residual: Floats
    hidden: Floats
    output: Floats


def rms_norm(x: Floats, gamma: Floats, eps: float) -> Floats:
    """``x / sqrt(mean(x**2) + eps) * gamma``."""
    normalized: Floats = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    return normalized * gamma


def layer_norm(x: Floats, gamma: Floats, beta: Floats, eps: float) -> Floats:
    """``(x - mean) / sqrt(variance + eps) * gamma + beta``."""
    centred = x - x.mean(axis=-1, keepdims=True)
    normalized: Floats = centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    return normalized * gamma + beta


def silu(x: Floats) -> Floats:
    """``x * sigmoid(x)``."""
    return np.asarray(x * 0.5 * (1.0 + np.tanh(0.5 * x)))


def gelu(x: Floats) -> Floats:
    """``x/2 * (1 + erf(x / sqrt(2)))``."""
    return np.asarray(x * 0.5 * (1.0 + np.vectorize(erf, otypes=[float])(x / np.sqrt(2.0))))


def gelu_tanh(x: Floats) -> Floats:
    """``x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x**3)))``, what GPT-2 was trained with."""
    return np.asarray(x * 0.5 * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3))))


GELUS: Mapping[Activation, Callable[[Floats], Floats]] = {"gelu": gelu, "gelu_tanh": gelu_tanh}
"""The forms of GELU by name."""


def softmax(scores: Floats) -> Floats:
    """Along the last axis; minus infinity is a masked score."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def rope_angles(tokens: int, head_dim: int, theta: float) -> Floats:
    """Angle of pair i at position p, ``p * theta**(-2i / head_dim)``: ``[tokens, head_dim/2]``."""
    frequencies = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    return np.asarray(np.arange(tokens)[:, None] * frequencies)


def rotate(x: Floats, head_dim: int, theta: float) -> Floats:
    """Rotary position embedding of adjacent pairs; heads lie side by side in the last axis."""
    return rotate_by(x, rope_angles(x.shape[0], head_dim, theta))


def rotate_by(x: Floats, angles: Floats) -> Floats:
    """Rotate adjacent pairs of all heads of a row by the row's angles, ``[rows, head_dim/2]``.

    One row of angles serves all rows of `x`.
    """
    pairs = x.reshape(x.shape[0], -1, angles.shape[1], 2)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    first, second = pairs[..., 0], pairs[..., 1]
    rotated = np.stack([first * cos - second * sin, first * sin + second * cos], axis=-1)
    return rotated.reshape(x.shape)


def attention(
    q: Floats, k: Floats, v: Floats, heads: int, kv_heads: int, causal: bool, length: int | None
) -> Floats:
    """Softmax attention of heads side by side; keys from `length` on are masked."""
    tokens, keys = q.shape[0], k.shape[0]
    head_dim = q.shape[1] // heads
    group = heads // kv_heads
    qh = q.reshape(tokens, heads, head_dim)
    kh = np.repeat(k.reshape(keys, kv_heads, head_dim), group, axis=1)
    vh = np.repeat(v.reshape(keys, kv_heads, head_dim), group, axis=1)
    scores = np.einsum("qhd,khd->hqk", qh, kh) / np.sqrt(head_dim)
    masked = np.zeros((tokens, keys), dtype=bool)
    if length is not None:
        masked |= np.arange(keys) >= length
    if causal:
        masked |= np.arange(keys) > np.arange(tokens)[:, None]
    weights = softmax(np.where(masked, -np.inf, scores))
    mixed: Floats = np.einsum("hqk,khd->qhd", weights, vh)
    return mixed.reshape(tokens, -1)


def llama_layer(
    x: Floats, w: Weights, *, heads: int, kv_heads: int, eps: float, theta: float = 10000.0
) -> Results:
    """RMSNorm, rotary embedding, grouped-query causal attention, SwiGLU."""
    head_dim = w["wq"].shape[0] // heads
    normalized = rms_norm(x, w["norm1.gamma"], eps)
    q = rotate(normalized @ w["wq"].T, head_dim, theta)
    k = rotate(normalized @ w["wk"].T, head_dim, theta)
    v = normalized @ w["wv"].T
    mixed = attention(q, k, v, heads, kv_heads, True, None)
    residual = x + mixed @ w["wo"].T
    normalized = rms_norm(residual, w["norm2.gamma"], eps)
    hidden = silu(normalized @ w["w_gate"].T) * (normalized @ w["w_up"].T)
    return Results(q, k, v, mixed, residual, hidden, residual + hidden @ w["w_down"].T)


def bert_layer(
    x: Floats, w: Weights, *, heads: int, eps: float, length: int | None = None
) -> Results:
    """Post-LayerNorm encoder layer with GELU, from sum to sum.

    The input is the un-normalized sum of the layer before, whose LayerNorm (``norm1``) counts
    as this layer's first step; `residual` and `output` are un-normalized sums again.  So a
    stack of these layers computes what BERT does, up to its last LayerNorm.
    """
    normalized = layer_norm(x, w["norm1.gamma"], w["norm1.beta"], eps)
    q, k, v = (normalized @ w[f"w{name}"].T + w[f"b{name}"] for name in "qkv")
    mixed = attention(q, k, v, heads, heads, False, length)
    residual = normalized + mixed @ w["wo"].T + w["bo"]
    normalized = layer_norm(residual, w["norm2.gamma"], w["norm2.beta"], eps)
    hidden = gelu(normalized @ w["w_up"].T + w["b_up"])
    output = normalized + hidden @ w["w_down"].T + w["b_down"]
    return Results(q, k, v, mixed, residual, hidden, output)


def gpt2_layer(
    x: Floats, w: Weights, *, heads: int, eps: float, activation: Activation = "gelu"
) -> Results:
    """Pre-LayerNorm decoder layer with GELU and causal attention."""
    normalized = layer_norm(x, w["norm1.gamma"], w["norm1.beta"], eps)
    q, k, v = (normalized @ w[f"w{name}"].T + w[f"b{name}"] for name in "qkv")
    mixed = attention(q, k, v, heads, heads, True, None)
    residual = x + mixed @ w["wo"].T + w["bo"]
    normalized = layer_norm(residual, w["norm2.gamma"], w["norm2.beta"], eps)
    hidden = GELUS[activation](normalized @ w["w_up"].T + w["b_up"])
    return Results(
        q, k, v, mixed, residual, hidden, residual + hidden @ w["w_down"].T + w["b_down"]
    )
