# SPDX-License-Identifier: Apache-2.0
"""The next token from logits: the likeliest, or one drawn at random from the likely ones."""

import math

import numpy as np

from afternorm.checkpoints.layer import Floats
from afternorm.errors import AfternormError


class Sampler:
    """Chooses tokens; the same seed and the same logits give the same ones.

    Parameters
    ----------
    temperature : 0 takes the likeliest token, the lowest id of equals.  Otherwise logits are
        divided by it before softmax.
    top_p : only the likeliest tokens are drawn from, as few as have this much probability
        together (nucleus sampling, Holtzman et al., 2020).
    seed : of the random numbers.

    Raises
    ------
    AfternormError
        If a parameter is out of its range, or a logit is not finite.
    """

    def __init__(self, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0) -> None:
        if not 0.0 <= temperature < math.inf:
            raise AfternormError(
                f"temperature={temperature} must be finite and not negative; 0 is greedy"
            )
        if not 0.0 < top_p <= 1.0:
            raise AfternormError(f"top_p={top_p} must be above 0 and at most 1; 1 keeps all tokens")
        if seed < 0:
            raise AfternormError(f"seed={seed} must not be negative")
        self.temperature = temperature
        self.top_p = top_p
        self.seed = seed
        self._rng = np.random.default_rng(seed)

    def __call__(self, logits: Floats) -> int:
        """A token from its logits, ``[vocabulary]``."""
        if not np.isfinite(logits).all():
            token = int(np.flatnonzero(~np.isfinite(logits))[0])
            raise AfternormError(f"the logit of token {token} is {logits[token]}, not finite")
        if self.temperature == 0.0:
            return int(logits.argmax())
        # Subtracted first: a tiny temperature must not overflow.
        weights = np.exp((logits - logits.max()) / self.temperature)
        order = np.argsort(-weights, kind="stable")
        cumulative = np.cumsum(weights[order])
        # A token belongs to the nucleus if those before it have less than top_p.
        count = int(np.searchsorted(cumulative, self.top_p * cumulative[-1])) + 1
        cumulative = cumulative[:count]
        drawn = np.searchsorted(cumulative, self._rng.random() * cumulative[-1], side="right")
        return int(order[drawn])
