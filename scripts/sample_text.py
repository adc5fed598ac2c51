# SPDX-License-Identifier: Apache-2.0
"""Samples texts from a decoder in float64, to measure accuracy on: python scripts/sample_text.py

Writes a JSON object: `model`, `seed`, `temperature`, `sequences` (token ids, each beginning as
every text of the model does), and `nll`, the mean over all predicted tokens of minus the natural
logarithm of their probability under the model, at temperature 1.  A text that ends is followed
by another, as in training, so that all sequences have the same length.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from afternorm.checkpoints import Model, load_model
from afternorm.checkpoints.decoder import Decoder
from afternorm.errors import AfternormError, CheckpointError
from afternorm.files import write_file
from afternorm.progress import progress
from afternorm.sampling import Sampler


def sample(
    model: Model, sequences: int, length: int, temperature: float, seed: int
) -> tuple[list[list[int]], float]:
    """So many sequences of so many tokens, and the mean NLL of all tokens but the first ones."""
    # GPT-2 puts nothing before a text, but separates texts by the token that ends them.
    start = model.bos or tuple(sorted(model.eos)[:1])
    if not start:
        raise CheckpointError(f"{model.name} has no token to begin a text with")
    if length <= len(start):
        raise AfternormError(f"length={length} leaves nothing to sample; use more tokens")
    decoder = Decoder(model, sequences, length=length)
    # A sequence has a generator of its own, so that it does not depend on how many there are.
    seeds = np.random.SeedSequence(seed).generate_state(sequences)
    samplers = [Sampler(temperature, seed=int(value)) for value in seeds]
    tokens = np.empty((sequences, length), dtype=np.int64)
    tokens[:, : len(start)] = start
    total = 0.0
    with progress("sampling", total=length) as advance:
        for position in range(length - 1):
            logits = decoder.step(tokens[:, position].tolist())
            advance(position + 2)
            if position + 1 < len(start):
                continue
            drawn = [draw(row) for draw, row in zip(samplers, logits, strict=True)]
            tokens[:, position + 1] = drawn
            top = logits.max(axis=1)
            norms = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
            total += float((norms - logits[np.arange(sequences), drawn]).sum())
    return tokens.tolist(), total / (sequences * (length - len(start)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--sequences", type=int, default=48)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        model = load_model(arguments.checkpoint)
        if arguments.seed < 0:
            raise AfternormError(f"seed={arguments.seed} must not be negative")
        sequences, nll = sample(
            model,
            arguments.sequences,
            arguments.length,
            arguments.temperature,
            arguments.seed,
        )
    except AfternormError as error:
        print(f"afternorm: error: {error}", file=sys.stderr)
        return 2
    content = {
        "model": model.name,
        "seed": arguments.seed,
        "temperature": arguments.temperature,
        "nll": nll,
        "sequences": sequences,
    }
    write_file(arguments.output, json.dumps(content) + "\n")
    count = sum(map(len, sequences))
    print(f"{count} tokens in {len(sequences)} sequences, mean NLL {nll:.4f}: {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
