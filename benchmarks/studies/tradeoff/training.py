"""One training run in this process, by the functions of the training commands, watched at chosen steps.

Only what a run leaves on disk is left out: its model directory, card and plots. The weights are those of the command
(``tests/studies/test_tradeoff.py``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from transformers import TrainerCallback
from trl import DPOConfig, SFTConfig

from pipelines.configs.train import TrainConfig, TrainDpoConfig, TrainSftConfig
from pipelines.configs.train_npo import TrainNpoConfig
from pipelines.engine import processes
from pipelines.models.reference import resolve_model
from pipelines.training import dpo, npo, sft
from pipelines.training.arguments import check_trainer_options

FORWARD: Final = 1 / 3
"""A forward pass of a token costs a third of a forward and backward pass."""

Look = Callable[[Any, int, float], None]
_KINDS: Final[Mapping[type[TrainConfig], tuple[type, Callable[..., Any]]]] = {
    TrainSftConfig: (SFTConfig, sft.make_trainer),
    TrainDpoConfig: (DPOConfig, dpo.make_trainer),
    TrainNpoConfig: (npo.NPOConfig, npo.make_trainer),
}


@dataclass(frozen=True)
class Trained:
    """A run that is done.

    Attributes:
        model: the trained model, as the trainer has it.
        tokens: tokens of forward and backward passes; those of a forward pass alone count a third.
        cpu_s: CPU time of training alone.
        setup_s: CPU time before training: data in tokens, the model, reference log-probabilities.
        log: the trainer's log, a dictionary for each logged step.
        left: what the transforms of the run say at its end, as for the run's summary.
    """

    model: Any
    tokens: float
    cpu_s: float
    setup_s: float
    log: list[dict[str, Any]]
    left: dict[str, Any]


class _Counter:
    """Counts the tokens that go through a model."""

    def __init__(self, model: Any) -> None:
        self.tokens, self._paused = 0.0, False
        self._pad = model.config.pad_token_id
        model.get_input_embeddings().register_forward_pre_hook(self._count)

    def _count(self, module: Any, args: tuple[torch.Tensor]) -> None:
        if not self._paused:
            self.tokens += int((args[0] != self._pad).sum()) * (1 if torch.is_grad_enabled() else FORWARD)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._paused = True
        yield
        self._paused = False


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Lets someone look at the model at chosen steps, and takes the time that it takes."""

    def __init__(self, at: Collection[int], look: Look, counter: _Counter) -> None:
        self._at, self._look, self._counter = at, look, counter
        self.looked_s = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self._at:
            started = time.process_time()
            with self._counter.paused():
                self._look(kwargs["model"], state.global_step, self._counter.tokens)
            self.looked_s += time.process_time() - started


def train(config: TrainConfig, *, at: Collection[int], look: Look) -> Trained:
    """Train as the command would.

    Args:
        config: the options of ``train-sft``, ``train-dpo`` or ``train-npo``.
        at: the steps after which somebody looks.
        look: called after these with the model, the step, and the number of tokens so far.
    """
    started = time.process_time()
    arguments_class, make_trainer = _KINDS[type(config)]
    device = processes.start()
    check_trainer_options(arguments_class, config)
    source = resolve_model(config.model)
    config.out.mkdir(parents=True, exist_ok=True)
    trainer = make_trainer(config, source, None, config.out, device)
    counter = _Counter(trainer.model)
    watch = _Watch(at, look, counter)
    trainer.add_callback(watch)
    ready = time.process_time()
    trainer.train()
    cpu_s = time.process_time() - ready - watch.looked_s
    left = {} if trainer.transforms is None else trainer.transforms.finish(config.out)
    return Trained(trainer.model, counter.tokens, cpu_s, ready - started, trainer.state.log_history, left)
