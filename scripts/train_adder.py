# SPDX-License-Identifier: Apache-2.0
"""Trains the model that adds two numbers: afternorm/models/adder.

Run it with PyTorch (`pip install 'afternorm[train]'`): python scripts/train_adder.py

A LLaMA of two layers reads ``a+b=`` and writes the sum, most significant digit first, then EOS,
for all a and b from 0 to 99.  It is trained on all 10,000 sums, so its score says how well it
knows them, not how it generalizes.  The loss counts the answer and its end only.  So that 8-bit
blocks do not hurt it, whatever a product multiplies is disturbed while training, with noise of a
few percent of its size.

The same seed on the same kind of CPU gives the same file; one thread, a few minutes.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from safetensors.torch import save as serialize
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from torch.nn import functional

from afternorm.checkpoints import load_model
from afternorm.checkpoints.decoder import continue_greedily
from afternorm.models import ADDER

BOS, EOS = "<s>", "</s>"
CHARACTERS = "0123456789+="
NUMBERS = range(100)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": len(CHARACTERS) + 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 16,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 100.0,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "bos_token_id": len(CHARACTERS),
    "eos_token_id": len(CHARACTERS) + 1,
    "torch_dtype": "float16",
}


def make_tokenizer() -> Tokenizer:
    """A token a character; what is not in the vocabulary is an error."""
    vocabulary = {token: i for i, token in enumerate([*CHARACTERS, BOS, EOS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split(Regex("."), "isolated")
    tokenizer.decoder = Fuse()
    tokenizer.add_special_tokens([BOS, EOS])
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])]
    )
    return tokenizer


class Product(nn.Linear):
    """A product whose operands are disturbed by `noise`, relative to their root mean square."""

    noise = 0.0

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(disturbed(x, self.noise), disturbed(self.weight, self.noise))


def disturbed(x: Tensor, noise: float) -> Tensor:
    """With normal noise of so many root mean squares of a row."""
    if not noise:
        return x
    size = x.detach().square().mean(-1, keepdim=True).sqrt()
    return x + noise * size * torch.randn_like(x)


class RMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(CONFIG["hidden_size"]))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.square().mean(-1, keepdim=True)
        return x * torch.rsqrt(mean + CONFIG["rms_norm_eps"]) * self.weight


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        dim, size = CONFIG["hidden_size"], CONFIG["head_dim"]
        self.q_proj = Product(dim, CONFIG["num_attention_heads"] * size)
        self.k_proj = Product(dim, CONFIG["num_key_value_heads"] * size)
        self.v_proj = Product(dim, CONFIG["num_key_value_heads"] * size)
        self.o_proj = Product(CONFIG["num_attention_heads"] * size, dim)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        def heads(y: Tensor) -> Tensor:
            return y.unflatten(-1, (-1, CONFIG["head_dim"])).transpose(1, 2)

        def rotated(y: Tensor) -> Tensor:
            first, second = y.chunk(2, -1)
            return y * cos + torch.cat([-second, first], -1) * sin

        noise = self.q_proj.noise
        q, k, v = heads(self.q_proj(x)), heads(self.k_proj(x)), heads(self.v_proj(x))
        mixed = functional.scaled_dot_product_attention(
            disturbed(rotated(q), noise),
            disturbed(rotated(k), noise),
            disturbed(v, noise),
            is_causal=True,
            enable_gqa=True,
        )
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        dim, hidden = CONFIG["hidden_size"], CONFIG["intermediate_size"]
        self.gate_proj = Product(dim, hidden)
        self.up_proj = Product(dim, hidden)
        self.down_proj = Product(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm()
        self.self_attn = Attention()
        self.post_attention_layernorm = RMSNorm()
        self.mlp = FeedForward()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Adder(nn.Module):
    """A LLaMA with the names of Hugging Face, less their prefix `model.`."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(CONFIG["vocab_size"], CONFIG["hidden_size"])
        self.layers = nn.ModuleList(Block() for _ in range(CONFIG["num_hidden_layers"]))
        self.norm = RMSNorm()
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                scale = 1.0 if "embed" in name else 0.7
                nn.init.normal_(parameter, std=scale * parameter.shape[1] ** -0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        size = CONFIG["head_dim"]
        frequencies = CONFIG["rope_theta"] ** (-torch.arange(0, size, 2) / size)
        angles = torch.outer(torch.arange(tokens.shape[1]), frequencies).repeat(1, 2)
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, angles.cos(), angles.sin())
        noise = self.layers[0].mlp.up_proj.noise
        return functional.linear(
            disturbed(self.norm(x), noise), disturbed(self.embed_tokens.weight, noise)
        )


def sums(tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """All sums, padded with EOS, and which tokens are to be predicted (answer and one EOS)."""
    end = tokenizer.token_to_id(EOS)
    texts, wanted = [], []
    longest = 1 + len("99+99=198") + 1
    for a in NUMBERS:
        for b in NUMBERS:
            prompt = tokenizer.encode(f"{a}+{b}=").ids
            text = [*prompt, *tokenizer.encode(str(a + b), add_special_tokens=False).ids, end]
            padding = longest - len(text)
            texts.append(text + [end] * padding)
            wanted.append([0.0] * len(prompt) + [1.0] * (len(text) - len(prompt)) + [0.0] * padding)
    return torch.tensor(texts), torch.tensor(wanted)


def train(seed: int, steps: int, batch: int, rate: float, noise: float) -> Adder:
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    texts, wanted = sums(make_tokenizer())
    model = Adder()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.1, fused=True
    )
    began = time.perf_counter()
    for step in range(steps):
        done = step / steps
        # Noise comes once the sums are known; the rate rises for 200 steps, then falls to nothing.
        Product.noise = noise * min(1.0, max(0.0, 3.0 * done - 0.5))
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 200) * (1.0 + math.cos(math.pi * done)) / 2
        chosen = torch.randint(len(texts), (batch,))
        text, weight = texts[chosen], wanted[chosen][:, 1:]
        logits = model(text[:, :-1])
        losses = functional.cross_entropy(logits.transpose(1, 2), text[:, 1:], reduction="none")
        loss = (losses * weight).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 250 == 249 or step == steps - 1:
            Product.noise, disturbance = 0.0, Product.noise
            with torch.no_grad():
                right = model(texts[:, :-1]).argmax(-1) == texts[:, 1:]
            known = (right | (wanted[:, 1:] == 0)).all(-1).float().mean()
            seconds = time.perf_counter() - began
            print(
                f"step {step + 1}: loss {loss.item():.4f}, noise {disturbance:.3f}, "
                f"{100 * known.item():.2f} % of the sums known, {seconds:.0f} s",
                flush=True,
            )
    return model


def save(model: Adder, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": tensor.half() for name, tensor in model.state_dict().items()}
    (folder / "model.safetensors").write_bytes(serialize(tensors, metadata={"format": "pt"}))
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    make_tokenizer().save(str(folder / "tokenizer.json"))


def score(folder: Path) -> int:
    """How many sums the saved model gets right, in float64, as the project reads it."""
    model = load_model(folder)
    pairs = [(a, b) for a in NUMBERS for b in NUMBERS]
    prompts = [model.encode(f"{a}+{b}=") for a, b in pairs]
    answers = continue_greedily(model, prompts, most=4)
    return sum(
        answer[-1] in model.eos and model.decode(answer) == str(a + b)
        for answer, (a, b) in zip(answers, pairs, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=ADDER)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--noise", type=float, default=0.03)
    arguments = parser.parse_args()
    model = train(arguments.seed, arguments.steps, arguments.batch, arguments.rate, arguments.noise)
    save(model, arguments.output)
    right = score(arguments.output)
    print(f"{right} of {len(NUMBERS) ** 2} sums right ({right / len(NUMBERS) ** 2:.2%})")


if __name__ == "__main__":
    main()
