"""Options that the trainer, or a library behind it, refuses: an error of the options, said before the work."""

from __future__ import annotations

import contextlib
import copy
import errno
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from transformers import SchedulerType, Trainer, get_scheduler
from transformers.utils import is_liger_kernel_available

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError, OgpsaError, is_out_of_memory
from pipelines.core.job import world_size

_OWN: Final = Path(__file__).resolve().parents[2]
_OWN_PACKAGES: Final = tuple(str(_OWN / name) for name in ("data_registry", "pipelines", "ogpsa_cli"))
# What libraries raise where options, installed packages or the machine do not go together.
_REFUSALS: Final = (ValueError, TypeError, ImportError, NotImplementedError, AssertionError, OSError)
# These lower the rate by a measured loss, and the trainer's own measurements are not made.
_BY_MEASUREMENT: Final = ("reduce_lr_on_plateau", "greedy")
# A name that leads nowhere is one that an option gives; libraries also raise OSError for what is no file at all.
_OF_NAMES: Final = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EBADF)
_MAX_REASON: Final = 500
_STEPS_TRIED: Final = 1_000_000


@contextlib.contextmanager
def refusals(
    passed_through: Mapping[str, Any] | None = None, has_begun: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """A context for what libraries do with the options before the first step is done.

    Args:
        passed_through: the options that are handed on as the user gave them. Where there are any, whatever a library
            raises is put down to them, since libraries check few values.
        has_begun: whether a step has been done; what is raised later is no refusal.

    Raises:
        ConfigError: a library refuses the options; the message quotes it. An error that our own code raises, or that
            the operating system does, goes through as it is.
    """
    try:
        yield
    except OgpsaError:
        raise
    except Exception as error:
        is_refusal = isinstance(error, _REFUSALS) or type(error).__name__ == "DeepSpeedConfigError"
        if not (is_refusal or passed_through) or _from_machine(error) or has_begun() or not _from_library(error):
            raise
        raise _refused(error, passed_through or {}) from error


def _from_machine(error: Exception) -> bool:
    """Whether the machine or another process is the cause: memory ran out, a disk is full, a connection is closed."""
    if isinstance(error, OSError):
        return error.errno not in _OF_NAMES
    lost_contact = world_size() > 1 and isinstance(error, RuntimeError) and not isinstance(error, NotImplementedError)
    return lost_contact or is_out_of_memory(error)


def _from_library(error: Exception) -> bool:
    """Whether the innermost function that raised it belongs to a library."""
    frames = traceback.extract_tb(error.__traceback__)
    return not frames[-1].filename.startswith(_OWN_PACKAGES)


def _refused(error: Exception, passed_through: Mapping[str, Any]) -> ConfigError:
    reason = " ".join(str(error).split())[:_MAX_REASON]
    if not reason or not isinstance(error, ValueError | ImportError | OSError | NotImplementedError):
        reason = f"{type(error).__name__}: {reason}".removesuffix(": ")
    where = ", ".join(f"trainer.{name} = {value!r}" for name, value in passed_through.items())
    fix = "install what is missing, or choose another option" if isinstance(error, ImportError) else None
    return ConfigError(f"the trainer refuses its options: {reason}", where=where[:_MAX_REASON] or None, fix=fix)


def check_schedule(name: str) -> None:
    """Refuse a learning-rate schedule that there is not, or that could not act.

    Raises:
        ConfigError: transformers has no such schedule, or it goes by measurements that are not made.
    """
    known = [schedule.value for schedule in SchedulerType if schedule.value not in _BY_MEASUREMENT]
    if name in _BY_MEASUREMENT:
        raise ConfigError(
            f"--schedule {name} goes by the trainer's own evaluation, which ogpsa does not make",
            fix=f"choose another: {', '.join(known)}",
        )
    if name not in known:
        raise ConfigError(
            f"option 'schedule': transformers has no schedule '{name}'{suggest(name, known)}",
            fix=f"choose from: {', '.join(known)}",
        )


def check_arguments(arguments: Any) -> None:
    """Try what the trainer would do with its options only after the model is loaded and the data are tokenised.

    Args:
        arguments: TRL's configuration of the trainer.

    Raises:
        ConfigError: the learning-rate schedule lacks options, or the optimizer or a kernel is not installed; the
            message says what is missing.
    """
    _try_schedule(arguments)
    _try_optimizer(arguments)
    if arguments.use_liger_kernel and not is_liger_kernel_available():
        raise ConfigError(
            "option 'trainer.use_liger_kernel': liger-kernel is not installed",
            fix="install it (pip install liger-kernel), or leave the option out",
        )


def check_deepspeed(arguments: Any, values: dict[str, Any]) -> None:
    """Refuse a DeepSpeed file that says otherwise than the options.

    Args:
        arguments: TRL's configuration of the trainer.
        values: DeepSpeed's configuration.

    Raises:
        ConfigError: they disagree; the message lists the values.
    """
    from transformers.integrations import HfTrainerDeepSpeedConfig

    with refusals():
        merged = HfTrainerDeepSpeedConfig(copy.deepcopy(values))
        merged.trainer_config_process(arguments)
    if merged.mismatches:
        lines = [
            line.lstrip("- ").replace("ds ", "the file has ").replace(" vs hf ", ", the options have ")
            for line in merged.mismatches
        ]
        raise ConfigError(
            "the DeepSpeed file and the options disagree: " + "; ".join(lines),
            fix='write "auto" for these values in the file',
        )


def _try_schedule(arguments: Any) -> None:
    name = str(getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=arguments.learning_rate)
    given = arguments.lr_scheduler_kwargs
    if given is not None and not isinstance(given, dict):
        raise ConfigError(f"option 'trainer.lr_scheduler_kwargs' is {given!r}, and should be a mapping of options")
    try:
        get_scheduler(
            name,
            optimizer=optimizer,
            num_warmup_steps=arguments.get_warmup_steps(_STEPS_TRIED),
            num_training_steps=_STEPS_TRIED,
            scheduler_specific_kwargs=dict(given) if given else None,
        )
    except (ValueError, TypeError, AssertionError) as error:
        raise ConfigError(
            f"--schedule {name}: {' '.join(str(error).split())}",
            fix="give it its options, as --set trainer.lr_scheduler_kwargs.NAME=VALUE, or choose another schedule",
        ) from error


def _try_optimizer(arguments: Any) -> None:
    name = str(getattr(arguments.optim, "value", arguments.optim))
    try:
        Trainer.get_optimizer_cls_and_kwargs(arguments, None)
    except (ImportError, ValueError, TypeError, AttributeError, KeyError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, ValueError) and "pass a" in reason and "model" in reason:
            return  # It needs the model; what else it needs is there.
        raise ConfigError(
            f"option 'trainer.optim': {name} cannot be used: {reason or type(error).__name__}",
            fix="install what is missing, or choose another optimizer (the default is adamw_torch)",
        ) from error


def check_batches(arguments: Any, num_rows: int, num_ranks: int) -> None:
    """Refuse to leave out the last batch of an epoch where it is the only one.

    Args:
        arguments: TRL's configuration of the trainer.
        num_rows: the number of samples in an epoch.
        num_ranks: the number of processes that share them.

    Raises:
        ConfigError: no batch would be left.
    """
    size = arguments.per_device_train_batch_size * num_ranks
    if arguments.dataloader_drop_last and num_rows < size:
        raise ConfigError(
            f"option 'trainer.dataloader_drop_last' leaves no batch: there are {num_rows} rows, and a batch of all "
            f"processes has {size}",
            fix="lower --batch-size, or leave the option out",
        )
