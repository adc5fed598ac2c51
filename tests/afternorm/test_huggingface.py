# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders against computations of their own, and every way they can be unusable."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from afternorm.checkpoints import Model, load_model
from afternorm.checkpoints.decoder import Decoder, continue_greedily
from afternorm.checkpoints.huggingface import load_folder
from afternorm.errors import CheckpointError

Tensors = dict[str, np.ndarray]
VOCABULARY, CONTEXT, DIM, HIDDEN, LAYERS = 11, 24, 12, 20, 2
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": DIM,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-3,
    "rope_theta": 50.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "eos_token_id": 2,
}
BERT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": VOCABULARY,
    "hidden_size": DIM,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 3,
    "max_position_embeddings": CONTEXT,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-2,
    "hidden_act": "gelu",
}
GPT2: dict[str, Any] = {
    "model_type": "gpt2",
    "vocab_size": VOCABULARY,
    "n_embd": DIM,
    "n_layer": LAYERS,
    "n_head": 3,
    "n_positions": CONTEXT,
    "layer_norm_epsilon": 1e-2,
    "activation_function": "gelu_new",
    "eos_token_id": [2, 7],
}


def llama_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    wide = config["num_attention_heads"] * config["head_dim"]
    narrow = config["num_key_value_heads"] * config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, DIM),
        "model.norm.weight": (DIM,),
    }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (VOCABULARY, DIM)
    for i in range(LAYERS):
        prefix = f"model.layers.{i}"
        shapes |= {
            f"{prefix}.input_layernorm.weight": (DIM,),
            f"{prefix}.self_attn.q_proj.weight": (wide, DIM),
            f"{prefix}.self_attn.k_proj.weight": (narrow, DIM),
            f"{prefix}.self_attn.v_proj.weight": (narrow, DIM),
            f"{prefix}.self_attn.o_proj.weight": (DIM, wide),
            f"{prefix}.post_attention_layernorm.weight": (DIM,),
            f"{prefix}.mlp.gate_proj.weight": (HIDDEN, DIM),
            f"{prefix}.mlp.up_proj.weight": (HIDDEN, DIM),
            f"{prefix}.mlp.down_proj.weight": (DIM, HIDDEN),
        }
    return shapes


def linear(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def bert_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (VOCABULARY, DIM),
        "bert.embeddings.position_embeddings.weight": (CONTEXT, DIM),
        "bert.embeddings.token_type_embeddings.weight": (2, DIM),
        **linear("bert.embeddings.LayerNorm", DIM),
        **linear("bert.pooler.dense", DIM, DIM),
    }
    for i in range(LAYERS):
        prefix = f"bert.encoder.layer.{i}"
        for name in ("query", "key", "value"):
            shapes |= linear(f"{prefix}.attention.self.{name}", DIM, DIM)
        shapes |= linear(f"{prefix}.attention.output.dense", DIM, DIM)
        shapes |= linear(f"{prefix}.attention.output.LayerNorm", DIM)
        shapes |= linear(f"{prefix}.intermediate.dense", HIDDEN, DIM)
        shapes |= linear(f"{prefix}.output.dense", DIM, HIDDEN)
        shapes |= linear(f"{prefix}.output.LayerNorm", DIM)
    return shapes


def gpt2_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (VOCABULARY, DIM),
        "transformer.wpe.weight": (CONTEXT, DIM),
        **linear("transformer.ln_f", DIM),
    }
    for i in range(LAYERS):
        prefix = f"transformer.h.{i}"
        shapes |= linear(f"{prefix}.ln_1", DIM) | linear(f"{prefix}.ln_2", DIM)
        for name, inputs, outputs in (
            ("attn.c_attn", DIM, 3 * DIM),
            ("attn.c_proj", DIM, DIM),
            ("mlp.c_fc", DIM, 4 * DIM),
            ("mlp.c_proj", 4 * DIM, DIM),
        ):
            shapes[f"{prefix}.{name}.weight"] = (inputs, outputs)
            shapes[f"{prefix}.{name}.bias"] = (outputs,)
        shapes[f"{prefix}.attn.bias"] = (1, 1, CONTEXT, CONTEXT)
    return shapes


SHAPES: dict[str, Callable[[dict[str, Any]], dict[str, tuple[int, ...]]]] = {
    "llama": llama_shapes,
    "bert": bert_shapes,
    "gpt2": gpt2_shapes,
}


def make(config: dict[str, Any], dtype: str = "<f4") -> Tensors:
    rng = np.random.default_rng(7)
    return {
        name: rng.normal(0.0, 0.5, shape).astype(dtype)
        for name, shape in SHAPES[config["model_type"]](config).items()
    }


def write(folder: Path, config: object, tensors: Tensors) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


def softmax(row: np.ndarray) -> np.ndarray:
    return np.exp(row) / np.exp(row).sum()


def normalize(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    rows = [(r - r.mean()) / math.sqrt(r.var() + eps) * weight + bias for r in x]
    return np.array(rows)


def erf_gelu(x: np.ndarray) -> np.ndarray:
    return np.array([[0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in row] for row in x])


def tanh_gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool) -> np.ndarray:
    """One head."""
    rows = []
    for i in range(len(q)):
        end = i + 1 if causal else len(k)
        rows.append(softmax(k[:end] @ q[i] / math.sqrt(q.shape[1])) @ v[:end])
    return np.array(rows)


def llama_logits(config: dict[str, Any], stored: Tensors, tokens: list[int]) -> np.ndarray:
    """As Hugging Face writes it: features i and i + head_dim/2 rotate together."""
    t = {name: tensor.astype(np.float64) for name, tensor in stored.items()}
    size, eps = config["head_dim"], config["rms_norm_eps"]

    def rms(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return np.array([row / math.sqrt((row**2).mean() + eps) * weight for row in x])

    frequencies = 1.0 / config["rope_theta"] ** (np.arange(0, size, 2) / size)
    angles = np.outer(np.arange(len(tokens)), np.concatenate([frequencies, frequencies]))

    def rotated(x: np.ndarray) -> np.ndarray:
        half = np.concatenate([-x[:, size // 2 :], x[:, : size // 2]], axis=1)
        return x * np.cos(angles) + half * np.sin(angles)

    x = t["model.embed_tokens.weight"][tokens]
    for i in range(LAYERS):
        p = f"model.layers.{i}"
        n = rms(x, t[f"{p}.input_layernorm.weight"])
        q, k, v = (n @ t[f"{p}.self_attn.{name}_proj.weight"].T for name in "qkv")
        heads = []
        for head in range(config["num_attention_heads"]):
            shared = head * config["num_key_value_heads"] // config["num_attention_heads"]
            mine = slice(head * size, (head + 1) * size)
            its = slice(shared * size, (shared + 1) * size)
            heads.append(attend(rotated(q[:, mine]), rotated(k[:, its]), v[:, its], causal=True))
        x = x + np.concatenate(heads, axis=1) @ t[f"{p}.self_attn.o_proj.weight"].T
        n = rms(x, t[f"{p}.post_attention_layernorm.weight"])
        gate, up = (n @ t[f"{p}.mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ t[f"{p}.mlp.down_proj.weight"].T
    tied = config["tie_word_embeddings"]
    classifier = t["model.embed_tokens.weight" if tied else "lm_head.weight"]
    return rms(x, t["model.norm.weight"]) @ classifier.T


def bert_hidden(config: dict[str, Any], stored: Tensors, tokens: list[int]) -> np.ndarray:
    t = {name: tensor.astype(np.float64) for name, tensor in stored.items()}
    heads = config["num_attention_heads"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return normalize(x, t[f"{name}.weight"], t[f"{name}.bias"], config["layer_norm_eps"])

    def apply(x: np.ndarray, name: str) -> np.ndarray:
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    e = "bert.embeddings"
    x = t[f"{e}.word_embeddings.weight"][tokens]
    x = x + t[f"{e}.position_embeddings.weight"][: len(tokens)]
    x = norm(x + t[f"{e}.token_type_embeddings.weight"][0], f"{e}.LayerNorm")
    for i in range(LAYERS):
        p = f"bert.encoder.layer.{i}"
        parts = [
            np.split(apply(x, f"{p}.attention.self.{name}"), heads, axis=1)
            for name in ("query", "key", "value")
        ]
        mixed = np.concatenate(
            [attend(*head, causal=False) for head in zip(*parts, strict=True)], 1
        )
        x = norm(apply(mixed, f"{p}.attention.output.dense") + x, f"{p}.attention.output.LayerNorm")
        hidden = erf_gelu(apply(x, f"{p}.intermediate.dense"))
        x = norm(apply(hidden, f"{p}.output.dense") + x, f"{p}.output.LayerNorm")
    return x


def gpt2_logits(config: dict[str, Any], stored: Tensors, tokens: list[int]) -> np.ndarray:
    t = {name: tensor.astype(np.float64) for name, tensor in stored.items()}
    act = tanh_gelu if config["activation_function"] == "gelu_new" else erf_gelu

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return normalize(x, t[f"{name}.weight"], t[f"{name}.bias"], config["layer_norm_epsilon"])

    def conv(x: np.ndarray, name: str) -> np.ndarray:
        return x @ t[f"{name}.weight"] + t[f"{name}.bias"]

    x = t["transformer.wte.weight"][tokens] + t["transformer.wpe.weight"][: len(tokens)]
    for i in range(LAYERS):
        p = f"transformer.h.{i}"
        qkv = np.split(conv(norm(x, f"{p}.ln_1"), f"{p}.attn.c_attn"), 3, axis=1)
        parts = [np.split(part, config["n_head"], axis=1) for part in qkv]
        mixed = np.concatenate([attend(*head, causal=True) for head in zip(*parts, strict=True)], 1)
        x = x + conv(mixed, f"{p}.attn.c_proj")
        x = x + conv(act(conv(norm(x, f"{p}.ln_2"), f"{p}.mlp.c_fc")), f"{p}.mlp.c_proj")
    return norm(x, "transformer.ln_f") @ t["transformer.wte.weight"].T


def check_decoder(model: Model, expected: np.ndarray) -> None:
    """The model's logits, and those of the decoder with its cache, for two sequences at once."""
    np.testing.assert_allclose(model.logits(TOKENS), expected, rtol=1e-9, atol=1e-9)
    decoder = Decoder(model, 2)
    other = TOKENS[::-1]
    steps = [decoder.step(pair) for pair in zip(TOKENS, other, strict=True)]
    got = np.stack(steps, axis=1)
    np.testing.assert_allclose(got[0], expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(got[1], model.logits(other), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_llama(tmp_path: Path, tied: bool, kv_heads: int) -> None:
    config = LLAMA | {"tie_word_embeddings": tied, "num_key_value_heads": kv_heads}
    tensors = make(config)
    model = load_model(write(tmp_path / "tiny", config, tensors))
    check_decoder(model, llama_logits(config, tensors, TOKENS))
    assert (model.name, model.arch, model.context, model.eos) == ("tiny", "llama", CONTEXT, {2})
    assert (model.positions, model.final_beta, model.tokenizer) == (None, None, None)
    assert (model.classifier is model.embedding) == tied


def test_llama_with_newer_options(tmp_path: Path) -> None:
    tensors = make(LLAMA)
    expected = llama_logits(LLAMA | {"rope_theta": 7.0}, tensors, TOKENS)
    config = {k: v for k, v in LLAMA.items() if k != "rope_theta"} | {
        "rope_parameters": {"rope_type": "default", "rope_theta": 7.0},
        "model_type": "mistral",
        "sliding_window": CONTEXT,
        "eos_token_id": None,
    }
    model = load_model(write(tmp_path / "m", config, tensors))
    check_decoder(model, expected)
    assert model.eos == frozenset()


def test_bert(tmp_path: Path) -> None:
    tensors = make(BERT)
    expected = bert_hidden(BERT, tensors, TOKENS)
    model = load_model(write(tmp_path / "m", BERT, tensors))
    np.testing.assert_allclose(model.hidden(TOKENS), expected, rtol=1e-9, atol=1e-9)
    mean = expected.mean(axis=0)
    np.testing.assert_allclose(model.sentence(TOKENS), mean / np.sqrt(mean @ mean), atol=1e-12)
    assert (model.arch, model.classifier, model.eos) == ("bert", None, frozenset())
    for refused in (model.logits, lambda tokens: Decoder(model, 1)):
        with pytest.raises(CheckpointError, match="m is an encoder"):
            refused(TOKENS)


def test_bert_with_names_of_tensorflow_and_no_prefix(tmp_path: Path) -> None:
    tensors = make(BERT)
    expected = bert_hidden(BERT, tensors, TOKENS)
    renamed = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("bert.")
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        renamed[name.replace("LayerNorm.bias", "LayerNorm.beta")] = tensor
    model = load_model(write(tmp_path / "m", BERT, renamed))
    np.testing.assert_allclose(model.hidden(TOKENS), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("activation", ["gelu_new", "gelu"])
def test_gpt2(tmp_path: Path, activation: str) -> None:
    config = GPT2 | {"activation_function": activation}
    tensors = make(config)
    model = load_model(write(tmp_path / "m", config, tensors))
    check_decoder(model, gpt2_logits(config, tensors, TOKENS))
    assert model.layers[0].activation == {"gelu_new": "gelu_tanh", "gelu": "gelu"}[activation]
    assert model.classifier is model.embedding
    assert (model.bos, model.eos) == ((), {2, 7})
    first = model.embed([5], 3)
    np.testing.assert_array_equal(
        first,
        tensors["transformer.wte.weight"].astype(float)[[5]]
        + tensors["transformer.wpe.weight"].astype(float)[3],
    )


def test_only_gpt2_has_a_choice_of_activation(tmp_path: Path) -> None:
    layer = load_model(write(tmp_path / "m", GPT2, make(GPT2))).layers[0]
    with pytest.raises(ValueError, match="activation must be one of gelu, gelu_tanh, not 'relu'"):
        replace(layer, activation="relu")
    layer = load_model(write(tmp_path / "m", BERT, make(BERT))).layers[0]
    with pytest.raises(ValueError, match="a bert layer has no activation='gelu_tanh'"):
        replace(layer, activation="gelu_tanh")


def test_16_bit_tensors(tmp_path: Path) -> None:
    tensors = make(LLAMA, "<f2")
    model = load_model(write(tmp_path / "m", LLAMA, tensors))
    check_decoder(model, llama_logits(LLAMA, tensors, TOKENS))


def test_bfloat16_tensors(tmp_path: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    tensors = {name: t.astype(ml_dtypes.bfloat16) for name, t in make(LLAMA).items()}
    model = load_model(write(tmp_path / "m", LLAMA, tensors))
    check_decoder(model, llama_logits(LLAMA, tensors, TOKENS))


def test_shards(tmp_path: Path) -> None:
    tensors = make(LLAMA)
    folder = write(tmp_path / "m", LLAMA, tensors)
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, mine in shards.items():
        save_file({name: tensors[name] for name in mine}, folder / file)
    with pytest.raises(CheckpointError, match=r"2 files \*\.safetensors and neither"):
        load_model(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {n: f for f, m in shards.items() for n in m}}))
    check_decoder(load_model(folder), llama_logits(LLAMA, tensors, TOKENS))
    (folder / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"cannot read .*b\.safetensors"):
        load_model(folder)
    index.write_text(json.dumps({"weight_map": {"x": "../a.safetensors"}}))
    with pytest.raises(CheckpointError, match="no name of a file beside it"):
        load_model(folder)
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="has no weight_map"):
        load_model(folder)


CONFIGS = {"llama": LLAMA, "bert": BERT, "gpt2": GPT2}


@pytest.mark.parametrize(
    ("family", "option", "value"),
    [
        ("llama", "model_type", "qwen2"),
        ("llama", "model_type", None),
        ("llama", "model_type", ["llama"]),
        ("llama", "rope_scaling", {"rope_type": "llama3", "factor": 8.0}),
        ("llama", "rope_scaling", {"type": "linear", "factor": 2.0}),
        ("llama", "rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}),
        ("llama", "rope_parameters", {"rope_type": "default", "rope_theta": -1.0}),
        ("llama", "rope_parameters", {"full_attention": {"rope_type": "default"}}),
        ("llama", "partial_rotary_factor", 0.5),
        ("llama", "rope_theta", 0),
        ("llama", "attention_bias", True),
        ("llama", "mlp_bias", True),
        ("llama", "hidden_act", "gelu"),
        ("llama", "sliding_window", CONTEXT - 1),
        ("llama", "layer_types", ["full_attention", "sliding_attention"]),
        ("llama", "num_key_value_heads", 3),
        ("llama", "head_dim", 5),
        ("llama", "hidden_size", "12"),
        ("llama", "num_hidden_layers", 0),
        ("llama", "num_hidden_layers", True),
        ("llama", "vocab_size", 1 << 21),
        ("llama", "rms_norm_eps", -1e-5),
        ("llama", "tie_word_embeddings", "yes"),
        ("llama", "eos_token_id", "</s>"),
        ("llama", "quantization_config", {"bits": 4}),
        ("bert", "is_encoder_decoder", True),
        ("bert", "add_cross_attention", True),
        ("bert", "is_decoder", True),
        ("bert", "position_embedding_type", "relative_key"),
        ("bert", "hidden_act", "relu"),
        ("bert", "num_attention_heads", 5),
        ("gpt2", "scale_attn_by_inverse_layer_idx", True),
        ("gpt2", "scale_attn_weights", False),
        ("gpt2", "activation_function", "relu"),
        ("gpt2", "n_head", 5),
        ("gpt2", "n_inner", -1),
    ],
)
def test_options_that_are_refused(tmp_path: Path, family: str, option: str, value: object) -> None:
    config = CONFIGS[family] | {option: value}
    folder = write(tmp_path / "m", config, make(CONFIGS[family]))
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert f"config.json: {option}={json.dumps(value)} is not supported; " in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("family", "option"),
    [("llama", "hidden_size"), ("bert", "max_position_embeddings"), ("gpt2", "n_layer")],
)
def test_sizes_that_are_not_said(tmp_path: Path, family: str, option: str) -> None:
    config = {key: value for key, value in CONFIGS[family].items() if key != option}
    with pytest.raises(CheckpointError, match=rf"config\.json does not say {option}"):
        load_model(write(tmp_path / "m", config, make(CONFIGS[family])))


@pytest.mark.parametrize("family", ["llama", "bert", "gpt2"])
def test_tensors_that_do_not_fit(tmp_path: Path, family: str) -> None:
    """Each tensor in turn is missing, has another shape, and has a value that is not finite."""
    config = CONFIGS[family]
    tensors = make(config)
    prefix = {"llama": "model.", "bert": "bert.", "gpt2": "transformer."}[family]
    # Heads for other tasks and buffers do not matter, whatever they are.
    ignored = [name for name in tensors if ".pooler." in name or name.endswith(".attn.bias")]
    assert bool(ignored) == (family != "llama")
    for name, tensor in tensors.items():
        short = name.removeprefix(prefix)
        rest = {other: value for other, value in tensors.items() if other != name}
        wrong = np.zeros((*tensor.shape, 1), "<f4")
        broken = tensor.copy()
        broken.flat[-1] = np.nan
        integers = np.zeros(tensor.shape, "<i4")
        shapes = f"shape {list(wrong.shape)}; config.json asks for {list(tensor.shape)}"
        for message, content in (
            (f" has no tensor {short}", rest),
            (f": {short} has {shapes}", rest | {name: wrong}),
            (f": {short} has values that are not finite", rest | {name: broken}),
            (f": {short} has type I32; use F64, F32, F16, BF16", rest | {name: integers}),
        ):
            folder = write(tmp_path / "m", config, content)
            if name in ignored:
                load_folder(folder)
                continue
            with pytest.raises(CheckpointError) as caught:
                load_folder(folder)
            assert str(caught.value) == f"{folder}{message}"


def test_tensors_without_use(tmp_path: Path) -> None:
    tensors = make(LLAMA)
    bias = {"model.layers.0.self_attn.q_proj.bias": np.zeros(24, "<f4")}
    with pytest.raises(CheckpointError, match=r"has a tensor layers\.0\.self_attn\.q_proj\.bias"):
        load_model(write(tmp_path / "m", LLAMA, tensors | bias))
    with pytest.raises(CheckpointError, match=r"has a tensor layers\.1"):
        load_model(write(tmp_path / "m", LLAMA | {"num_hidden_layers": 1}, tensors))
    twice = {"norm.weight": np.zeros(DIM, "<f4")}
    with pytest.raises(CheckpointError, match=r"norm\.weight is there twice"):
        load_model(write(tmp_path / "m", LLAMA, tensors | twice))
    tied = LLAMA | {"tie_word_embeddings": True}
    model = load_model(write(tmp_path / "m", tied, tensors))
    assert model.classifier is model.embedding


def test_files_that_are_broken(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", LLAMA, make(LLAMA))
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    for broken in (data[:-1], data[: len(data) // 2], data[:20], data[:5], b"", b"PK" + data[2:]):
        weights.write_bytes(broken)
        with pytest.raises(CheckpointError, match="is truncated or no safetensors file") as caught:
            load_model(folder)
        assert "\n" not in str(caught.value)
    weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"0 files \*\.safetensors .*; save the model with"):
        load_model(folder)
    for text, message in (
        ("{", "is not JSON"),
        ("[1]", "holds no JSON object"),
        ("[" * 100000, "is not JSON"),
    ):
        (folder / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            load_model(folder)
    (folder / "config.json").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="is not JSON"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"cannot read .*config\.json: No such file"):
        load_model(folder)


def test_decoding_beyond_its_limits(tmp_path: Path) -> None:
    model = load_model(write(tmp_path / "m", LLAMA, make(LLAMA)))
    decoder = Decoder(model, 2, length=1)
    for tokens, message in (([1], "1 tokens for 2"), ([1, VOCABULARY], "token 11 is not in")):
        with pytest.raises(CheckpointError, match=message):
            decoder.step(tokens)
    decoder.step([1, 2])
    with pytest.raises(CheckpointError, match="all 1 positions"):
        decoder.step([1, 2])
    with pytest.raises(CheckpointError, match=r"25 tokens; .* room for 1 to 24"):
        Decoder(model, 1, length=CONTEXT + 1)
    with pytest.raises(CheckpointError, match="at least one"):
        Decoder(model, 0)


def test_greedy_answers_of_prompts_of_different_lengths(tmp_path: Path) -> None:
    model = load_model(write(tmp_path / "m", LLAMA | {"eos_token_id": [0, 1, 2]}, make(LLAMA)))
    prompts = [[3, 1], [5], [4, 6, 8], [9], [7, 7]]
    answers = continue_greedily(model, prompts, 6)
    for prompt, answer in zip(prompts, answers, strict=True):
        text = model.greedy(prompt, len(prompt) + 6)[len(prompt) :]
        ends = [i for i, token in enumerate(text) if token in model.eos]
        assert answer == text[: ends[0] + 1 if ends else 6]
    assert {len(answer) for answer in answers} != {6}, "no text ends: the test shows too little"
    with pytest.raises(CheckpointError, match="prompt 1 is empty"):
        continue_greedily(model, [[1], []], 2)


def test_pooling_that_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", BERT, make(BERT))
    (folder / "1_Pooling").mkdir()
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    load_model(folder)
    pooling.write_text(json.dumps({"pooling_mode_cls_token": True}))
    with pytest.raises(CheckpointError, match="pooling_mode_cls_token=true is not supported"):
        load_model(folder)


@pytest.mark.slow
def test_minilm_knows_what_belongs_together(minilm: Path) -> None:
    model = load_model(minilm)
    assert (len(model.layers), model.dim, model.context) == (6, 384, 512)
    assert model.encode("Hello world") == [101, 7592, 2088, 102]
    pairs = [
        ("A man is eating food.", "Someone is having a meal."),
        ("The stock market fell today.", "Share prices dropped this afternoon."),
        ("How do I reset my password?", "I forgot my login and need a new one."),
    ]
    first, second = (np.array([model.sentence(model.encode(p[i])) for p in pairs]) for i in (0, 1))
    cosines = first @ second.T
    print(cosines)
    related, others = cosines.diagonal(), cosines[~np.eye(3, dtype=bool)]
    assert related.min() > 0.4
    assert others.max() < 0.25
