# SPDX-License-Identifier: Apache-2.0
"""A transformer layer: from a checkpoint, or made from a seed."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from golden import reference
from golden.reference import Activation

Floats = NDArray[np.float64]
Arch = Literal["llama", "bert", "gpt2"]
ARCHS: tuple[Arch, ...] = ("llama", "bert", "gpt2")


@dataclass(frozen=True)
class Layer:
    """One transformer layer.

    Attributes
    ----------
    arch : its kind (see `golden.reference`): which normalization, where, and which functions.
    heads, kv_heads : attention heads, and those of keys and values; equal but for LLaMA.
    eps : the normalizations' epsilon.
    weights : float64 arrays by name, as `golden.reference` names them.
    theta : base of the rotary embedding (LLaMA).
    activation : of the feed-forward part; only GPT-2 has a choice.  It is what the float
        reference computes: the machine's GELU is the erf form, which the tanh form approaches
        within 5e-4.

    Raises
    ------
    ValueError
        If the weights' shapes do not fit together; the message names the weight.
    """

    arch: Arch
    heads: int
    kv_heads: int
    eps: float
    weights: dict[str, Floats]
    theta: float = 10000.0
    activation: Activation = "gelu"

    def __post_init__(self) -> None:
        if self.arch not in ARCHS:
            raise ValueError(f"arch must be one of {', '.join(ARCHS)}, not {self.arch!r}")
        if self.activation not in get_args(Activation):
            raise ValueError(
                f"activation must be one of {', '.join(get_args(Activation))}, "
                f"not {self.activation!r}"
            )
        if self.activation != "gelu" and self.arch != "gpt2":
            raise ValueError(f"a {self.arch} layer has no activation={self.activation!r}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads={self.heads} is no multiple of kv_heads={self.kv_heads}")
        if self.weights["wq"].shape[0] % self.heads:
            raise ValueError(f"wq has {self.weights['wq'].shape[0]} rows for {self.heads} heads")
        if self.arch == "llama" and self.head_dim % 2:
            raise ValueError(f"the rotary embedding needs an even head_dim, not {self.head_dim}")
        for name, shape in self.shapes().items():
            if name not in self.weights:
                raise ValueError(f"the layer has no {name}")
            if self.weights[name].shape != shape:
                raise ValueError(f"{name} has shape {self.weights[name].shape}, not {shape}")

    @property
    def dim(self) -> int:
        """Features of a token."""
        return int(self.weights["wq"].shape[1])

    @property
    def head_dim(self) -> int:
        """Features of a head."""
        return int(self.weights["wq"].shape[0]) // self.heads

    @property
    def hidden(self) -> int:
        """Features between the projections of the feed-forward part."""
        return int(self.weights["w_up"].shape[0])

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape that every weight must have."""
        return weight_shapes(
            self.arch, self.dim, self.hidden, self.heads, self.kv_heads, self.head_dim
        )

    def reference(self, x: Floats, length: int | None = None) -> reference.Results:
        """The layer in float64; keys from `length` on are masked (BERT)."""
        if self.arch == "llama":
            return reference.llama_layer(
                x,
                self.weights,
                heads=self.heads,
                kv_heads=self.kv_heads,
                eps=self.eps,
                theta=self.theta,
            )
        if self.arch == "bert":
            return reference.bert_layer(
                x, self.weights, heads=self.heads, eps=self.eps, length=length
            )
        return reference.gpt2_layer(
            x, self.weights, heads=self.heads, eps=self.eps, activation=self.activation
        )


def weight_shapes(
    arch: Arch, dim: int, hidden: int, heads: int, kv_heads: int, head_dim: int
) -> dict[str, tuple[int, ...]]:
    """The shape of every weight of a layer."""
    wide, narrow = heads * head_dim, kv_heads * head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "norm1.gamma": (dim,),
        "wq": (wide, dim),
        "wk": (narrow, dim),
        "wv": (narrow, dim),
        "wo": (dim, wide),
        "norm2.gamma": (dim,),
        "w_up": (hidden, dim),
        "w_down": (dim, hidden),
    }
    if arch == "llama":
        return shapes | {"w_gate": (hidden, dim)}
    return shapes | {
        "norm1.beta": (dim,),
        "norm2.beta": (dim,),
        "bq": (wide,),
        "bk": (narrow,),
        "bv": (narrow,),
        "bo": (dim,),
        "b_up": (hidden,),
        "b_down": (dim,),
    }


def seeded_layer(
    arch: Arch,
    seed: int,
    *,
    dim: int = 64,
    heads: int = 4,
    kv_heads: int | None = None,
    hidden: int = 128,
    head_dim: int | None = None,
) -> Layer:
    """A layer with random weights of realistic sizes; gamma has a few outliers."""
    rng = np.random.default_rng([seed, ARCHS.index(arch)])
    if kv_heads is None:
        kv_heads = heads
    if head_dim is None:
        head_dim = dim // heads
    weights = {}
    for name, shape in weight_shapes(arch, dim, hidden, heads, kv_heads, head_dim).items():
        if len(shape) == 2:
            weights[name] = rng.normal(0.0, shape[1] ** -0.5, shape)
        elif name.endswith("gamma"):
            outliers = rng.random(shape) < 0.03
            weights[name] = rng.lognormal(0.0, 0.3, shape) * np.where(outliers, 6.0, 1.0)
        else:
            weights[name] = rng.normal(0.0, 0.1, shape)
    eps = {"llama": 1e-5, "bert": 1e-12, "gpt2": 1e-5}[arch]
    return Layer(arch, heads, kv_heads, eps, weights)


def seeded_input(layer: Layer, seed: int, tokens: int) -> Floats:
    """Rows for a layer whose sizes spread by a factor of 4 to 16, with a few large features."""
    rng = np.random.default_rng([seed, tokens])
    x = rng.normal(0.0, 1.0, (tokens, layer.dim))
    x *= np.where(rng.random(layer.dim) < 0.02, 5.0, 1.0)
    return np.asarray(x * np.exp2(rng.uniform(-2.0, 2.0, (tokens, 1))))
