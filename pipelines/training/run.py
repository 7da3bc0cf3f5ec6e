"""The frame that SFT and DPO share: find and record inputs, make or find the run, build and equip the trainer."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers.trainer_callback import PrinterCallback

from data_registry.core import stopping
from data_registry.core.manifest import InputRecord
from pipelines.configs.train import TrainConfig
from pipelines.core import collecting
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.job import is_main, on_main, world_size
from pipelines.core.making import Made, Wanted, find, make
from pipelines.engine import processes
from pipelines.engine.deepspeed_config import deepspeed_config
from pipelines.engine.peaks import peak_of
from pipelines.models.loading import check_loadable, check_plannable, is_planned_only, load_training_model
from pipelines.models.lora import check_targets, lora_settings, peft_config
from pipelines.models.publishing import check_can_push, push_model
from pipelines.models.reference import ModelSource, resolve_model
from pipelines.models.training_cost import training_cost
from pipelines.training.arguments import check_trainer_options
from pipelines.training.beside import Beside
from pipelines.training.card import model_card
from pipelines.training.checkpoints import storage as checkpoint
from pipelines.training.checkpoints import unfinished
from pipelines.training.checkpoints.run_files import BEST_FOLDER, METRICS_FILE, SAMPLES_FILE
from pipelines.training.data.heldout import HeldOut, held_out_plan, split_held_out
from pipelines.training.data.mixing import data_text
from pipelines.training.data.plan import DataPlan
from pipelines.training.data.sources import SourceTokens, source_names
from pipelines.training.generation_config import settle_generation_config
from pipelines.training.inputs import training_inputs
from pipelines.training.metrics import MetricsCallback
from pipelines.training.plan import training_plan
from pipelines.training.progress_samples import ProgressSamples
from pipelines.training.refusals import check_batches, refusals
from pipelines.training.saving import save_run
from pipelines.training.selection import HeldOutCallback
from pipelines.training.throughput import Throughput
from pipelines.training.transforming import chain_maker
from pipelines.training.trial_save import TrialSave

logger = logging.getLogger(__name__)


class MakeTrainer(Protocol):
    """Builds the trainer of SFT or DPO."""

    def __call__(
        self, config: Any, source: ModelSource, ds_config: dict[str, Any] | None, partial: Path, device: torch.device
    ) -> Any:
        """The trainer, with its model and data; see ``make_trainer`` of SFT and of DPO."""


def run_training(
    config: TrainConfig, *, task: str, method: str, arguments_class: type[Any], make_trainer: MakeTrainer
) -> Made:
    """The steps of every training command.

    Args:
        config: the command's options.
        task: the task of the data set: ``"sft"`` or ``"preference"``.
        method: the method's name for the model card.
        arguments_class: TRL's configuration class of the trainer.
        make_trainer: builds the trainer.

    Raises:
        OgpsaError: an input or option cannot be used, or training diverged.
    """
    device = processes.start()
    config = on_main(lambda: _with_length(config))
    check_trainer_options(arguments_class, config)
    repository = on_main(lambda: _repository(config))
    source = on_main(lambda: resolve_model(config.model, revision=config.revision))
    inputs = on_main(lambda: training_inputs(config, source, task=task))
    wanted = Wanted(config.out, "run", config, inputs, overwrite=config.overwrite, keep_partial=True)
    with contextlib.ExitStack() as until_done:
        made = find(wanted)
        if made is None:
            ds_config = deepspeed_config(config, on_cpu=device.type == "cpu")
            if ds_config is not None:
                processes.start_deepspeed()

            def train(writer: ArtifactWriter) -> None:
                collecting.settle()
                with unfinished.kept_from_first_checkpoint(writer.path):
                    on_main(lambda: check_loadable(source, trust_remote_code=config.trust_remote_code))
                    beginning = on_main(lambda: unfinished.begin(config, inputs, writer.path))
                    trainer = make_trainer(beginning.config, source, ds_config, writer.path, device)
                    install_trial(trainer, config, method, source, inputs, writer.path)
                    install_samples(trainer, config, writer.path)
                    trainer.install_checkpoints(beginning.checkpointer(writer.path))
                    # From here on a signal is only noted; it takes effect at points where all ranks agree on it.
                    until_done.enter_context(stopping.deferred())
                    with refusals(config.trainer, lambda: trainer.is_under_way):
                        trainer.train(resume_from_checkpoint=beginning.resume_from)
                    writer.summary = save_run(trainer, config, method, source, writer.path, inputs)

            made = make(wanted, train)
        on_main(lambda: checkpoint.remove_all(config.out))
    if repository is not None and is_main():
        # The other processes are done: a large model takes longer than they would wait for each other.
        push_model(repository, made.path, private=config.hub_private)
    return made


def plan_training(
    config: TrainConfig,
    *,
    task: str,
    arguments_class: type[Any],
    data_plan: Callable[[Any, ModelSource], DataPlan] | None = None,
) -> list[tuple[str, str]]:
    """The plan of a training command, for ``--dry-run``; its inputs are checked.

    Args:
        config: the command's options.
        task: the task of the data set.
        arguments_class: TRL's configuration class of the trainer.
        data_plan: plans what becomes of the data sets, from the options with the longest sequence filled in; by
            default every row is a sample.
    """
    length, config = config.length(), config.settled()
    check_trainer_options(arguments_class, config)
    _repository(config)
    source = resolve_model(config.model, revision=config.revision)
    check_plannable(source, trust_remote_code=config.trust_remote_code)
    if is_planned_only(source):
        # There is neither a fingerprint of weights nor, often, a tokenizer: every row counts as a sample.
        data_plan = None
    else:
        training_inputs(config, source, task=task)
    if data_plan is not None:
        planned = data_plan(config, source)
    else:
        rows, held_out = split_held_out(config, task)
        planned = DataPlan(len(rows), [("data", data_text(config, len(rows))), *held_out_plan(config, held_out)])
    planned.lines.append(("length", str(length)))
    return training_plan(config, source, planned)


def _with_length(config: TrainConfig) -> TrainConfig:
    """The options with the longest sequence filled in; it is said if the data brought it."""
    length = config.length()
    if length.is_prepared:
        logger.info("longest sequence: %d tokens, %s", length.tokens, length.origin)
    return config.settled()


def _repository(config: TrainConfig) -> str | None:
    """The repository that the model is to be pushed to, found to be open to whoever is logged in."""
    return None if config.push_to_hub is None else check_can_push(config.push_to_hub)


def build_trainer(
    trainer_class: type,
    config: TrainConfig,
    source: ModelSource,
    arguments: Any,
    rows: Any,
    tokenizer: Any,
    partial: Path,
    beside: Beside | None,
) -> Any:
    """A trainer on the model that training starts from, with our log and the transforms that the options ask for.

    Args:
        trainer_class: TRL's trainer class, extended by the mixin.
        config: the command's options.
        source: the model.
        arguments: the trainer's own configuration. It must be made before the model is loaded: under ZeRO 3 it
            announces the engine, so that weights are loaded in shards.
        rows: the rows that it trains on.
        tokenizer: the tokenizer with the chat template that is saved with the model.
        partial: the directory of the run being made.
        beside: the losses beside that of the rows, or None.

    Raises:
        ConfigError: the trainer or PEFT refuses its options.
    """
    check_batches(arguments, len(rows), world_size())
    model = load_training_model(config, source)
    settings = lora_settings(config)
    if settings is not None:
        check_targets(model, settings)
    architecture = type(model.get_base_model() if source.is_adapter else model).__name__
    kept_generation = settle_generation_config(model.get_base_model() if source.is_adapter else model)
    with refusals(config.trainer):
        trainer = trainer_class(
            model=model,
            args=arguments,
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=peft_config(model, settings) if settings else None,
        )
    trainer.remove_callback(PrinterCallback)
    trainer.kept_generation = kept_generation
    trainer.add_callback(MetricsCallback(partial / METRICS_FILE))
    trainer.beside = beside
    trainer.throughput = watched_throughput(trainer, config)
    names = source_names(config)
    trainer.source_tokens = SourceTokens(names) if len(names) > 1 else None
    trainer.install_transforms(chain_maker(config, source, architecture, int(tokenizer.pad_token_id)))
    return trainer


def watched_throughput(trainer: Any, config: TrainConfig) -> Throughput:
    """The counter of a trainer's tokens; it counts what its model trains on."""
    bare, peak = trainer.accelerator.unwrap_model(trainer.model), peak_of(trainer.args.device, config.precision)
    throughput = Throughput(None if peak is None else training_cost(bare), peak)
    # A compiled model calls no hooks of ours; it has no losses beside the trainer's either.
    if not trainer.args.torch_compile:
        throughput.watch(bare)
    return throughput


def install_trial(
    trainer: Any, config: TrainConfig, method: str, source: ModelSource, inputs: list[InputRecord], partial: Path
) -> None:
    """Have a trainer try to save, before anything else that it does when training begins."""
    trial = TrialSave(
        trainer, partial, lambda: model_card(config, method, inputs, {"model_of_step": 0}), source.reference
    )
    trainer.callback_handler.callbacks.insert(0, trial)


def install_samples(trainer: Any, config: TrainConfig, partial: Path) -> None:
    """Have a trainer ask its model as it learns, if the options want it; before the checkpoints, which keep answers."""
    if config.sample_every:
        trainer.progress_samples = ProgressSamples(trainer, config, partial / SAMPLES_FILE, seed=config.seed)
        trainer.add_callback(trainer.progress_samples)


def install_held_out(trainer: Any, held_out: HeldOut, config: TrainConfig, partial: Path) -> None:
    """Have a trainer measure the held-out loss; call it after :func:`build_trainer`."""
    trainer.install_held_out(HeldOutCallback(trainer, held_out, config, partial / BEST_FOLDER))
