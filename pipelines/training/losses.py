"""The losses that TRL's DPO trainer offers and the options that each can take, checked before any computation."""

from __future__ import annotations

import inspect
import re
from typing import Any

from trl import DPOTrainer

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError
from pipelines.configs.train import TrainDpoConfig

# TRL silently ignores these where the loss does not know them.
_USED_BY = {
    "label_smoothing": {"robust", "exo_pair", "aot", "aot_unpaired"},
    "discopop_tau": {"discopop"},
}
# The value of these on a batch is not a mean over its pairs: aot sorts the pairs, sft takes the mean over all tokens.
_COUPLED = {"aot", "aot_unpaired", "sft"}
# Functions of the sums of both answers' log-ratios, in which tokens may have weights. The others take the mean over
# tokens, sort sums, or leave the reference out.
_OF_LOG_RATIOS = {
    "sigmoid", "hinge", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "discopop",
}  # fmt: skip
# TRL multiplies a loss by the weights in place, which makes the backward pass of these losses fail.
_NOT_WEIGHTED = {"hinge", "sft"}


def known_losses() -> list[str]:
    """The names of the losses of the installed TRL; empty where its code no longer lists them."""
    return sorted(set(re.findall(r'loss_type == "(\w+)"', inspect.getsource(DPOTrainer._compute_loss))))


def couples_pairs(config: TrainDpoConfig) -> bool:
    """Whether the loss of a batch is anything other than the mean over the losses of its pairs."""
    return not _COUPLED.isdisjoint(config.losses)


def check_loss(config: TrainDpoConfig) -> None:
    """Refuse unknown losses, and options that a loss cannot take or would ignore.

    Raises:
        ConfigError: there are problems; the message lists all of them.
    """
    known, given, names = known_losses(), config.trainer, config.losses
    problems = [
        f"option 'loss': unknown loss '{name}'{suggest(name, known)}" for name in names if known and name not in known
    ]
    if problems:
        raise ConfigError(problems, fix=f"one of: {', '.join(known)}; or several, with commas between them")
    if len(set(names)) != len(names):
        problems.append("option 'loss': the same loss twice; give it a weight in trainer.loss_weights")
    for key, users in _USED_BY.items():
        if key in given and users.isdisjoint(names):
            problems.append(f"option 'trainer.{key}' has no effect on --loss {config.loss}, only on {_listed(users)}")
    smoothing = given.get("label_smoothing", 0.0)
    if not _is_number(smoothing):
        raise ConfigError(f"option 'trainer.label_smoothing' is {smoothing!r}, and should be a number")
    if "exo_pair" in names and not 0 < smoothing < 1:
        problems.append("--loss exo_pair needs label smoothing between 0 and 1: --set trainer.label_smoothing=1e-3")
    if "robust" in names and not 0 <= smoothing < 0.5:
        problems.append(f"--loss robust takes trainer.label_smoothing from 0 to below 0.5, not {smoothing:g}")
    if given.get("use_weighting"):
        for name in names:
            if name in ("aot", "aot_unpaired"):
                problems.append(f"trainer.use_weighting weighs pairs, which --loss {name} takes apart")
            elif name in _NOT_WEIGHTED:
                problems.append(f"trainer.use_weighting with --loss {name} fails in TRL's backward pass")
    problems += _token_problems(config)
    weights = given.get("loss_weights")
    if weights is not None and not (isinstance(weights, list) and all(map(_is_number, weights))):
        problems.append(f"option 'trainer.loss_weights' is {weights!r}, and should be a list of numbers")
    elif weights is not None and len(weights) != len(names):
        problems.append(f"trainer.loss_weights has {len(weights)} weights for {len(names)} losses ({config.loss})")
    if problems:
        raise ConfigError(problems)


def _token_problems(config: TrainDpoConfig) -> list[str]:
    """What weights of tokens do not go with."""
    asked = {"--token-weights": config.token_weights, "--rejected-tokens": config.rejected_tokens}
    named = " and ".join(name for name, value in asked.items() if value is not None)
    if not named:
        return []
    problems = [
        f"{named}: --loss {name} is no function of the answers' sums of log-ratios; with weights go "
        f"{_listed(_OF_LOG_RATIOS)}"
        for name in config.losses
        if name not in _OF_LOG_RATIOS
    ]
    if config.trainer.get("use_weighting"):
        problems.append(f"{named}: trainer.use_weighting weighs pairs by the log-probabilities of all their tokens")
    return problems


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))
