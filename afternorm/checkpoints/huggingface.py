# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders: `config.json`, safetensors, `tokenizer.json`.

Families, by `model_type`:

- `llama`, and `mistral` where its window covers the context: RMSNorm, grouped-query attention,
  SwiGLU, tied or untied embeddings.  Hugging Face rotates feature i of a head together with
  feature i + head_dim/2; this project rotates adjacent features.  So the rows of wq and wk are
  put into that order here, which leaves scores as they are.
- `bert`: post-LayerNorm.  The embeddings' LayerNorm becomes `norm1` of the first layer, a
  layer's last one `norm1` of the next, and the very last one the model's.
- `gpt2`: pre-LayerNorm, learned positions.  The config chooses between two forms of GELU; the
  float reference computes the one that it names, the machine has the erf form.

An option that would change results and is not supported is refused, as is a tensor that has no
place in the model.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from afternorm.checkpoints.huggingface_tokenizer import HuggingFaceTokenizer
from afternorm.checkpoints.layer import Floats, Layer
from afternorm.checkpoints.model import Model
from afternorm.checkpoints.tensors import Tensors, read_json
from afternorm.errors import CheckpointError
from golden.reference import Activation

_SIZE_MAX = 1 << 20

_GELUS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


class Options:
    """Options of a config.json; every error names the file, the option and its value."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values = read_json(path)

    def get(self, name: str, default: Any = None) -> Any:
        """An option; `default` if it is absent or null."""
        value = self._values.get(name)
        return default if value is None else value

    def size(self, name: str, default: int | None = None) -> int:
        """A positive integer."""
        value = self.get(name, default)
        if value is None:
            raise CheckpointError(f"{self.path} does not say {name}")
        if type(value) is not int or not 0 < value <= _SIZE_MAX:
            raise self.refusal(name, f"it must be an integer from 1 to {_SIZE_MAX}")
        return value

    def positive(self, name: str, default: float) -> float:
        """A positive number."""
        value = self.get(name, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise self.refusal(name, "it must be a positive number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.get(name, default)
        if type(value) is not bool:
            raise self.refusal(name, "it must be true or false")
        return value

    def only(self, name: str, *accepted: object) -> None:
        """Refuse what is not accepted; the first value is the default."""
        if self.get(name, accepted[0]) not in accepted:
            words = " or ".join(json.dumps(value) for value in accepted)
            raise self.refusal(name, f"it must be {words}")

    def refusal(self, name: str, remedy: str) -> CheckpointError:
        """The error for an option."""
        value = json.dumps(self._values.get(name))
        return CheckpointError(f"{self.path}: {name}={value} is not supported; {remedy}")


def load_folder(folder: Path, tokenizer: Path | None = None) -> Model:
    """Read a model, and its tokenizer from the folder or from `tokenizer`.

    Raises
    ------
    CheckpointError
        If a file is missing or broken, an option is not supported, or a tensor is missing,
        superfluous, of another shape, or not finite.
    """
    options = Options(folder / "config.json")
    kind = options.get("model_type")
    loaders = {"llama": _llama, "mistral": _llama, "bert": _bert, "gpt2": _gpt2}
    if not isinstance(kind, str) or kind not in loaders:
        raise options.refusal("model_type", f"it must be one of {', '.join(loaders)}")
    for name in ("is_encoder_decoder", "add_cross_attention"):
        options.only(name, False)
    if options.get("quantization_config") is not None:
        raise options.refusal("quantization_config", "use the model before its quantization")
    path = folder / "tokenizer.json" if tokenizer is None else tokenizer
    words = None
    if tokenizer is not None or path.is_file():
        words = HuggingFaceTokenizer(path, strict=kind != "bert")
    return loaders[kind](folder, options, words)


def _llama(folder: Path, options: Options, words: HuggingFaceTokenizer | None) -> Model:
    dim, hidden = options.size("hidden_size"), options.size("intermediate_size")
    count, heads = options.size("num_hidden_layers"), options.size("num_attention_heads")
    kv_heads = options.size("num_key_value_heads", heads)
    vocabulary, context = options.size("vocab_size"), options.size("max_position_embeddings")
    if heads % kv_heads:
        raise options.refusal("num_key_value_heads", f"it must divide num_attention_heads={heads}")
    if options.get("head_dim") is None and dim % heads:
        raise options.refusal("num_attention_heads", f"it must divide hidden_size={dim}")
    head_dim = options.size("head_dim", max(dim // heads, 1))
    if head_dim % 2:
        raise options.refusal("head_dim", f"rotation needs an even number, not {head_dim}")
    options.only("hidden_act", "silu", "swish")
    for name in ("attention_bias", "mlp_bias"):
        options.only(name, False)
    window = options.get("sliding_window")
    if window is not None and not (type(window) is int and window >= context):
        raise options.refusal(
            "sliding_window", f"it must be null or cover the context of {context} tokens"
        )
    kinds = options.get("layer_types", [])
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        raise options.refusal("layer_types", 'all must be "full_attention"')
    theta = _theta(options)
    eps = options.positive("rms_norm_eps", 1e-6)
    tied = options.flag("tie_word_embeddings", False)

    tensors = Tensors(folder, "model.")
    embedding = tensors.take("embed_tokens.weight", (vocabulary, dim))
    wide, narrow = heads * head_dim, kv_heads * head_dim
    layers = []
    for number in range(count):
        prefix = f"layers.{number}"

        def take(name: str, *shape: int, prefix: str = prefix) -> Floats:
            return tensors.take(f"{prefix}.{name}.weight", shape)

        weights = {
            "norm1.gamma": take("input_layernorm", dim),
            "wq": _adjacent_pairs(take("self_attn.q_proj", wide, dim), head_dim),
            "wk": _adjacent_pairs(take("self_attn.k_proj", narrow, dim), head_dim),
            "wv": take("self_attn.v_proj", narrow, dim),
            "wo": take("self_attn.o_proj", dim, wide),
            "norm2.gamma": take("post_attention_layernorm", dim),
            "w_gate": take("mlp.gate_proj", hidden, dim),
            "w_up": take("mlp.up_proj", hidden, dim),
            "w_down": take("mlp.down_proj", dim, hidden),
        }
        layers.append(Layer("llama", heads, kv_heads, eps, weights, theta))
    gamma = tensors.take("norm.weight", (dim,))
    classifier = embedding if tied else tensors.take("lm_head.weight", (vocabulary, dim))
    tensors.finish(
        [r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"] + (["lm_head.weight"] if tied else [])
    )
    return Model(
        name=folder.resolve().name,
        arch="llama",
        layers=tuple(layers),
        embedding=embedding,
        positions=None,
        final_gamma=gamma,
        final_beta=None,
        classifier=classifier,
        context=context,
        tokenizer=words,
        bos=_bos(words),
        eos=_eos(options),
    )


def _bert(folder: Path, options: Options, words: HuggingFaceTokenizer | None) -> Model:
    dim, hidden = options.size("hidden_size"), options.size("intermediate_size")
    count, heads = options.size("num_hidden_layers"), options.size("num_attention_heads")
    vocabulary, context = options.size("vocab_size"), options.size("max_position_embeddings")
    types = options.size("type_vocab_size", 2)
    if dim % heads:
        raise options.refusal("num_attention_heads", f"it must divide hidden_size={dim}")
    options.only("hidden_act", "gelu")
    options.only("position_embedding_type", "absolute")
    options.only("is_decoder", False)
    _check_pooling(folder)
    eps = options.positive("layer_norm_eps", 1e-12)

    tensors = Tensors(folder, "bert.")
    # Early checkpoints have TensorFlow's names.
    tensors.rename(r"LayerNorm\.gamma$", "LayerNorm.weight")
    tensors.rename(r"LayerNorm\.beta$", "LayerNorm.bias")
    embedding = tensors.take("embeddings.word_embeddings.weight", (vocabulary, dim))
    positions = tensors.take("embeddings.position_embeddings.weight", (context, dim))
    kinds = tensors.take("embeddings.token_type_embeddings.weight", (types, dim))
    gamma = tensors.take("embeddings.LayerNorm.weight", (dim,))
    beta = tensors.take("embeddings.LayerNorm.bias", (dim,))
    layers = []
    for number in range(count):
        prefix = f"encoder.layer.{number}"
        weights = {"norm1.gamma": gamma, "norm1.beta": beta}
        for name, source, shape in (
            ("q", "attention.self.query", (dim, dim)),
            ("k", "attention.self.key", (dim, dim)),
            ("v", "attention.self.value", (dim, dim)),
            ("o", "attention.output.dense", (dim, dim)),
            ("_up", "intermediate.dense", (hidden, dim)),
            ("_down", "output.dense", (dim, hidden)),
        ):
            weights[f"w{name}"] = tensors.take(f"{prefix}.{source}.weight", shape)
            weights[f"b{name}"] = tensors.take(f"{prefix}.{source}.bias", shape[:1])
        norm = f"{prefix}.attention.output.LayerNorm"
        weights["norm2.gamma"] = tensors.take(f"{norm}.weight", (dim,))
        weights["norm2.beta"] = tensors.take(f"{norm}.bias", (dim,))
        layers.append(Layer("bert", heads, heads, eps, weights))
        gamma = tensors.take(f"{prefix}.output.LayerNorm.weight", (dim,))
        beta = tensors.take(f"{prefix}.output.LayerNorm.bias", (dim,))
    # Heads for other tasks than embedding.
    tensors.finish(
        [r"embeddings\.(position|token_type)_ids", r"(pooler|cls|classifier|qa_outputs)\..*"]
    )
    return Model(
        name=folder.resolve().name,
        arch="bert",
        layers=tuple(layers),
        embedding=embedding,
        positions=positions + kinds[0],
        final_gamma=gamma,
        final_beta=beta,
        classifier=None,
        context=context,
        tokenizer=words,
        bos=(),
        eos=frozenset(),
    )


def _gpt2(folder: Path, options: Options, words: HuggingFaceTokenizer | None) -> Model:
    dim, count, heads = options.size("n_embd"), options.size("n_layer"), options.size("n_head")
    hidden = options.size("n_inner", 4 * dim)
    vocabulary, context = options.size("vocab_size"), options.size("n_positions")
    if dim % heads:
        raise options.refusal("n_head", f"it must divide n_embd={dim}")
    options.only("scale_attn_weights", True)
    options.only("scale_attn_by_inverse_layer_idx", False)
    options.only("activation_function", "gelu_new", *_GELUS)
    activation = _GELUS[options.get("activation_function", "gelu_new")]
    eps = options.positive("layer_norm_epsilon", 1e-5)
    tied = options.flag("tie_word_embeddings", True)

    tensors = Tensors(folder, "transformer.")
    embedding = tensors.take("wte.weight", (vocabulary, dim))
    positions = tensors.take("wpe.weight", (context, dim))
    layers = []
    for number in range(count):
        prefix = f"h.{number}"

        def product(name: str, n: int, k: int, prefix: str = prefix) -> tuple[Floats, Floats]:
            # Stored as [in, out].
            weight = tensors.take(f"{prefix}.{name}.weight", (k, n))
            return weight.T.copy(), tensors.take(f"{prefix}.{name}.bias", (n,))

        weights = {}
        for ours, theirs in (("norm1", "ln_1"), ("norm2", "ln_2")):
            weights[f"{ours}.gamma"] = tensors.take(f"{prefix}.{theirs}.weight", (dim,))
            weights[f"{ours}.beta"] = tensors.take(f"{prefix}.{theirs}.bias", (dim,))
        weight, bias = product("attn.c_attn", 3 * dim, dim)
        for i, name in enumerate("qkv"):
            weights[f"w{name}"] = weight[i * dim : (i + 1) * dim]
            weights[f"b{name}"] = bias[i * dim : (i + 1) * dim]
        weights["wo"], weights["bo"] = product("attn.c_proj", dim, dim)
        weights["w_up"], weights["b_up"] = product("mlp.c_fc", hidden, dim)
        weights["w_down"], weights["b_down"] = product("mlp.c_proj", dim, hidden)
        layers.append(Layer("gpt2", heads, heads, eps, weights, activation=activation))
    gamma = tensors.take("ln_f.weight", (dim,))
    beta = tensors.take("ln_f.bias", (dim,))
    classifier = embedding if tied else tensors.take("lm_head.weight", (vocabulary, dim))
    tensors.finish([r"h\.\d+\.attn\.(masked_)?bias"] + (["lm_head.weight"] if tied else []))
    return Model(
        name=folder.resolve().name,
        arch="gpt2",
        layers=tuple(layers),
        embedding=embedding,
        positions=positions,
        final_gamma=gamma,
        final_beta=beta,
        classifier=classifier,
        context=context,
        tokenizer=words,
        bos=_bos(words),
        eos=_eos(options),
    )


def _theta(options: Options) -> float:
    """Base of the rotary embedding, which old and new configs say in different places."""
    for name in ("rope_scaling", "rope_parameters"):
        value = options.get(name, {})
        known = {"type", "rope_type", "rope_theta", "partial_rotary_factor"}
        if (
            not isinstance(value, dict)
            or not value.keys() <= known
            or any(value.get(key, "default") != "default" for key in ("type", "rope_type"))
            or value.get("partial_rotary_factor", 1.0) != 1.0
        ):
            raise options.refusal(name, 'it must be null or of the type "default"')
    options.only("partial_rotary_factor", 1.0)
    theta = options.get("rope_parameters", {}).get("rope_theta")
    if theta is None:
        return options.positive("rope_theta", 10000.0)
    if type(theta) not in (int, float) or not 0 < theta < math.inf:
        raise options.refusal("rope_parameters", "rope_theta must be a positive number")
    return float(theta)


def _adjacent_pairs(weight: Floats, head_dim: int) -> Floats:
    """Rows of every head from half-split to adjacent pairs: i, i + head_dim/2, i + 1, ..."""
    halves = weight.reshape(-1, 2, head_dim // 2, weight.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)


def _check_pooling(folder: Path) -> None:
    """Refuse sentence encoders whose embedding is not the mean of the tokens."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return
    options = Options(path)
    options.only("pooling_mode_mean_tokens", True)
    for name in ("cls_token", "max_tokens", "mean_sqrt_len_tokens"):
        options.only(f"pooling_mode_{name}", False)


def _bos(words: HuggingFaceTokenizer | None) -> tuple[int, ...]:
    """What the tokenizer puts before a text."""
    return () if words is None else tuple(words.encode(""))


def _eos(options: Options) -> frozenset[int]:
    """The config's end of a text: a token, a list of them, or none."""
    value = options.get("eos_token_id", [])
    tokens = value if isinstance(value, list) else [value]
    if any(type(token) is not int for token in tokens):
        raise options.refusal("eos_token_id", "it must be an integer or a list of integers")
    return frozenset(tokens)
