"""Sampling of answers in which every prompt draws from a generator of its own, whatever shares its batch.

transformers draws for a whole batch from one generator, so that an answer would depend on the prompts beside it.

Shapes: B prompts of a batch, L tokens so far, V words of the vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, TopPLogitsWarper

from data_registry.core.errors import NumericsError


class SampledToken(LogitsProcessor):
    """Draws the next token of every prompt, and leaves it alone possible, so that greedy decoding takes it.

    Args:
        seeds: the seed of each prompt, in the order of the batch.
        temperature: the temperature of sampling, above 0.
        top_p: the smallest share of probability that is sampled from.
    """

    def __init__(self, seeds: Sequence[int], *, temperature: float, top_p: float) -> None:
        self._draws = [np.random.default_rng(seed) for seed in seeds]
        self._temperature, self._top_p = temperature, top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores ``[B, V]`` of the next token: 0 for the one that is drawn, minus infinity for all others.

        Args:
            input_ids: ``[B, L]`` int64, the tokens so far.
            scores: ``[B, V]``, the model's logits.

        Raises:
            NumericsError: the logits give no probabilities.
        """
        words_B = draw(scores, self._draws, temperature=self._temperature, top_p=self._top_p)
        chosen_BV = torch.full_like(scores, -torch.inf)
        return chosen_BV.scatter(1, words_B[:, None], 0.0)


def draw(logits_BV: Tensor, draws: Sequence[np.random.Generator], *, temperature: float, top_p: float) -> Tensor:
    """The next token of each prompt, int64 ``[B]``, with one number from the generator of each.

    Args:
        logits_BV: ``[B, V]``.
        draws: the generator of each prompt.
        temperature: the temperature of sampling, above 0.
        top_p: the smallest share of probability that is sampled from.

    Raises:
        NumericsError: the logits give no probabilities.
    """
    logits_BV = logits_BV.float()
    # From the largest, so that a temperature near 0 does not make it infinite.
    warped_BV = (logits_BV - logits_BV.amax(-1, keepdim=True)) / temperature
    if top_p < 1.0:
        # It reads no tokens so far.
        warped_BV = TopPLogitsWarper(top_p)(torch.empty(0, dtype=torch.int64), warped_BV)
    # The inverse of the distribution function at a number from [0, 1): one draw for each prompt and token, so that
    # prompts which have ended do not change what others draw. In float64, the sum of a vocabulary is 1.
    sums_BV = warped_BV.softmax(-1, dtype=torch.float64).cumsum(-1)
    if bool(sums_BV[:, -1].isnan().any()):
        raise NumericsError("the model's logits are not finite", fix="look at the model, or try --precision fp32")
    drawn_B = torch.tensor([each.random() for each in draws], dtype=torch.float64, device=sums_BV.device)
    # The first word whose sum exceeds the number; a word without probability never is.
    words_B1 = torch.searchsorted(sums_BV, (drawn_B * sums_BV[:, -1])[:, None], right=True)
    return words_B1[:, 0].clamp(max=logits_BV.shape[1] - 1)


def seed_of(seed: int, *what: object) -> int:
    """A seed for one answer, from the seed of all and what tells the answer from others.

    Returns:
        a number below 2^32.
    """
    return int.from_bytes(hashlib.sha256(repr((seed, *what)).encode()).digest()[:4], "big")
