"""What is to be said of a finished run that has probably not done what was meant by it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.configs.train import TrainConfig

# Learning rates of AdamW beyond these are far from what publications and recipes of the field use: from 1e-7 to 1e-4
# for all parameters, from 1e-5 to 1e-3 for adapters. Very small models bear more.
_ALL_PARAMETERS = (1e-8, 5e-4)
_ADAPTERS = (2e-6, 5e-3)
_SHARE, _DEVIATIONS = 0.01, 2.0
# A run of fewer steps that takes no tenth off its loss has hardly begun.
_FEW_STEPS, _TENTH = 30, 0.1
# Of so few values no mean of a part can be told from another.
FEW_LOGGED = 4
# Less likely by so many nats a token is another answer: a model that forgets one kind of answer still gives others.
_LOST = 1.0


def losses_of(metrics: Sequence[Mapping[str, Any]], step_losses: Mapping[int, float] | None) -> list[float]:
    """The losses of a run in the order of its steps: those logged, or those of every step where hardly any was logged.

    Args:
        metrics: the lines of its ``metrics.jsonl``.
        step_losses: the losses of its steps, by the number of the step from 0; without the first they are not used.
    """
    logged = [float(line["loss"]) for line in metrics if "loss" in line]
    if len(logged) < FEW_LOGGED and step_losses and 0 in step_losses:
        return [step_losses[step] for step in sorted(step_losses)]
    return logged


def learned(losses: Sequence[float], moved: float | None) -> str:
    """One sentence on what training did: how the loss changed, and how far the weights moved.

    Args:
        losses: the losses of the run in the order of its steps.
        moved: the norm of the change of the weights over their norm; None where it is not known.
    """
    if not losses:
        return "no loss was measured"
    text = _course(losses)
    return text if moved is None else f"{text}; the weights moved by {moved:.2g} of their norm"


def _course(losses: Sequence[float]) -> str:
    if len(losses) == 1:
        return f"the training loss was {losses[0]:.4g} in the one step that was logged"
    first, last, noise = _halves(losses)
    if abs(last - first) <= noise:
        where = f"{first:.4g} in the first half of the run, {last:.4g} in the second"
        return f"the training loss {_still(first, last)} ({where})"
    part = max(1, len(losses) // 4)
    first, last = _mean_and_error(losses[:part])[0], _mean_and_error(losses[-part:])[0]
    means = f" (means of the first and the last {part} of {len(losses)} values)" if part > 1 else ""
    return f"the training loss {'fell' if last < first else 'rose'} from {first:.4g} to {last:.4g}{means}"


def remarks(
    config: TrainConfig, metrics: Sequence[Mapping[str, Any]], losses: Sequence[float], *, adapters: bool
) -> list[str]:
    """Sentences about a finished run; none where nothing is remarkable.

    Args:
        config: the run's options.
        metrics: the lines of its ``metrics.jsonl``.
        losses: its losses in the order of its steps, from :func:`losses_of`.
        adapters: whether adapters were trained rather than all parameters.
    """
    found = (
        _of_learning_rate(config, adapters=adapters),
        _of_warmup(config, metrics),
        _of_losses(config, losses, steps=_last_step(metrics), adapters=adapters),
        _of_chosen(metrics),
    )
    return [text for text in found if text]


def _of_learning_rate(config: TrainConfig, *, adapters: bool) -> str | None:
    if not str(config.trainer.get("optim", "adamw_torch")).startswith("adam"):
        return None
    low, high = _ADAPTERS if adapters else _ALL_PARAMETERS
    rate, kind = config.learning_rate, "adapters" if adapters else "all parameters"
    usual = "1e-5 to 1e-3" if adapters else "1e-7 to 1e-4"
    if rate < low:
        return f"--learning-rate {rate:g} is very low for training {kind} (usual: {usual}): they hardly move"
    if rate > high:
        return f"--learning-rate {rate:g} is very high for training {kind} (usual: {usual}): models forget at it"
    return None


def _of_warmup(config: TrainConfig, metrics: Sequence[Mapping[str, Any]]) -> str | None:
    steps = _last_step(metrics)
    if not 0 < steps < config.warmup_steps:
        return None
    peak = f"--learning-rate {config.learning_rate:g} was never reached"
    return f"--warmup-steps {config.warmup_steps:g} are more than the run's steps, {steps}: {peak}"


def _of_losses(config: TrainConfig, losses: Sequence[float], *, steps: int, adapters: bool) -> str | None:
    if len(losses) < 2:
        return None
    first, last, noise = _halves(losses)
    figures = f"{first:.4g} in the first half of the run, {last:.4g} in the second"
    if last > first + noise:
        return f"the training loss rose: {figures}; a lower --learning-rate (now {config.learning_rate:g}) may help"
    fell = last < first - noise
    if fell and not (steps < _FEW_STEPS and last > (1 - _TENTH) * first > 0):
        return None
    usual = "1e-5 to 1e-3" if adapters else "1e-6 to 1e-4, and the more the smaller the model"
    course = "hardly fell" if fell else _still(first, last)
    return (
        f"the training loss {course}: {figures}, so that little was learned; give "
        f"a higher --learning-rate (now {config.learning_rate:g}; usual: {usual}) or more steps (now {steps}: "
        "--epochs or --max-steps)"
    )


def _still(first: float, last: float) -> str:
    """What is said of halves whose difference may be chance."""
    return "did not move" if abs(last - first) <= _SHARE * abs(first) else "moved no more than single steps differ"


def _halves(losses: Sequence[float]) -> tuple[float, float, float]:
    """The means of the first and of the second half of a run, and by how much they differ where nothing is learned."""
    half = len(losses) // 2
    (first, first_error), (last, last_error) = _mean_and_error(losses[:half]), _mean_and_error(losses[-half:])
    # Steps are on different rows, so that losses differ where nothing is learned too.
    return first, last, max(_SHARE * abs(first), _DEVIATIONS * math.hypot(first_error, last_error))


def _last_step(metrics: Sequence[Mapping[str, Any]]) -> int:
    return max((int(line["step"]) for line in metrics if "step" in line), default=0)


def _of_chosen(metrics: Sequence[Mapping[str, Any]]) -> str | None:
    """Whether a run that forgets rejected answers has lost the chosen ones of held-out rows too."""
    levels = [float(line["eval_chosen_log_prob"]) for line in metrics if "eval_chosen_log_prob" in line]
    if len(levels) < 2 or levels[-1] > levels[0] - _LOST:
        return None
    return (
        f"held-out chosen answers became far less likely: {levels[0]:.4g} nats a token at the first measurement, "
        f"{levels[-1]:.4g} at the last; more is forgotten than was meant (--retain-weight and --anchor hold it, and so "
        "does a lower --learning-rate)"
    )


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and its standard error; 0 where a single value has none."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, 0.0
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))
