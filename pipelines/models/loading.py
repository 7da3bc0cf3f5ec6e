"""Loads whole models from safetensors, with their adapter, or refuses them with a reason."""

from __future__ import annotations

import contextlib
import importlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_registry.core.errors import InputError, first_line, is_out_of_memory
from pipelines.configs.common import EngineConfig
from pipelines.models.adapted import put_on
from pipelines.models.files import CONFIG, check_config, check_weight_files, first_mismatch
from pipelines.models.foreign import foreign_files
from pipelines.models.four_bits import four_bit_options, in_four_bits, ready_for_adapters
from pipelines.models.reference import ModelSource, model_directory
from pipelines.models.special_tokens import check_special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


logger = logging.getLogger(__name__)


_WEIGHT_FILES = ("*.safetensors", "*.bin", "*.index.json", "*.pt", "*.pth", "*.gguf", "*.h5", "*.msgpack", "adapter_*")


def load_model(
    source: ModelSource,
    *,
    precision: str,
    attention: str | None = None,
    trust_remote_code: bool = False,
    for_training: bool = False,
    four_bits: bool = False,
) -> PreTrainedModel:
    """Load a causal language model, every weight of it from safetensors.

    Args:
        source: the model, as :func:`resolve_model` found it.
        precision: ``"fp32"`` or ``"bf16"``.
        attention: the name of an attention implementation; None leaves the choice to transformers.
        trust_remote_code: run Python code that comes with the model.
        for_training: keep weights in float32 whatever the precision (training holds fp32 master weights), and leave
            an adapter unmerged and trainable: the result is then a ``peft.PeftModel``. Otherwise it is merged.
        four_bits: hold the weights in four bits, on the present CUDA device; the model is then for adapters.

    Returns:
        The model on the CPU (but see ``four_bits``), in evaluation mode unless ``for_training``.

    Raises:
        InputError: files are missing, damaged or pickled, weights do not fit the configuration, or the model is of a
            type that transformers does not know or that does not generate text.
        ArtifactError: the model changed while it was being read.
    """
    import torch

    directory = model_directory(source)
    if source.base is not None:
        base = load_model(
            source.base, precision="fp32" if for_training else precision, attention=attention,
            trust_remote_code=trust_remote_code,
        )  # fmt: skip
        with quiet():
            adapted: PreTrainedModel = put_on(base, directory, trainable=for_training)
        source.check_unchanged()
        return adapted
    check_config(directory, trust_remote_code)
    check_weight_files(directory)
    dtype = torch.float32 if for_training or precision == "fp32" else torch.bfloat16
    with foreign_files(f"'{directory}' cannot be loaded", where=str(directory / CONFIG)):
        kinds = four_bit_options(precision) if four_bits else {"dtype": dtype}
        model = _load_weights(directory, kinds, attention, trust_remote_code)
    check_special_tokens(model, directory)
    # What is made from the model (adapters, cards) names the model as the user does, not by a folder of the cache.
    model.name_or_path = model.config._name_or_path = source.path_or_id
    if not torch.cuda.is_available():
        _take_out_of_files(model)
    source.check_unchanged()
    return model.train(for_training)


def check_loadable(source: ModelSource, *, trust_remote_code: bool = False) -> None:
    """Refuse a model that its configuration and the headers of its files rule out, before any work is done with it.

    Loading checks the same again; weights that lie on the hub are first fetched then.

    Args:
        source: the model, or the adapter with its base.
        trust_remote_code: as for :func:`load_model`.

    Raises:
        InputError: as for :func:`load_model`.
    """
    if source.base is not None:
        check_loadable(source.base, trust_remote_code=trust_remote_code)
    else:
        check_config(source.directory, trust_remote_code)
    if source.is_local:
        check_weight_files(source.directory)


def is_planned_only(source: ModelSource) -> bool:
    """Whether a directory holds a model's configuration and no file that could be weights: plans need no more."""
    if not source.is_local or source.run is not None or source.base is not None:
        return False
    return not any(any(source.directory.glob(pattern)) for pattern in _WEIGHT_FILES)


def check_plannable(source: ModelSource, *, trust_remote_code: bool = False) -> None:
    """As :func:`check_loadable`, for a plan: a directory with a configuration alone will do."""
    if is_planned_only(source):
        check_config(source.directory, trust_remote_code)
    else:
        check_loadable(source, trust_remote_code=trust_remote_code)


def _take_out_of_files(model: PreTrainedModel) -> None:
    """Copy weights that are still views of mapped files, of which a later change of a file would change the values.

    Where there is an accelerator, moving the model there copies them.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


# --- Checking and loading ----------------------------------------------------------------------------------------


def _load_weights(
    directory: Path, kinds: dict[str, Any], attention: str | None, trust_remote_code: bool
) -> PreTrainedModel:
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        with quiet():
            model, report = AutoModelForCausalLM.from_pretrained(
                directory,
                use_safetensors=True,
                output_loading_info=True,
                **kinds,
                trust_remote_code=trust_remote_code,
                **({} if attention is None else {"attn_implementation": attention}),
            )
    except (ValueError, ImportError, AssertionError, StrictDataclassError) as error:
        what = f"with attention '{attention}'" if attention and "ttn_impl" in str(error) + attention else ""
        raise InputError(
            f"'{directory}' cannot be loaded {what}: {first_line(error)}".replace(" :", ":"),
            where=str(directory / CONFIG),
        ) from error
    except (RuntimeError, OSError, KeyError, TypeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"the weights of '{directory}' do not fit its {CONFIG}: {first_mismatch(directory) or first_line(error)}",
            where=str(directory),
            fix="use the configuration that the weights were saved with",
        ) from error
    if report["missing_keys"]:
        # transformers would fill these with random numbers.
        missing = sorted(report["missing_keys"])
        raise InputError(
            f"{len(missing)} weights of '{directory}' are missing from its files",
            where=", ".join(missing[:3]) + (" ..." if len(missing) > 3 else ""),
            fix=f"use the {CONFIG} that the weights were saved with, or download the model again",
        )
    if report["unexpected_keys"]:
        unused = sorted(report["unexpected_keys"])
        logger.warning("%s: %d weights in the files are not used, such as %s", directory, len(unused), unused[0])
    return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """A context that keeps transformers' bars and loading tables off the console; callers say what matters in them."""
    log = importlib.import_module("transformers.utils.logging")
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # The libraries warn about each other.
            yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()


def load_training_model(config: EngineConfig, source: ModelSource) -> Any:
    """Load the model with float32 master weights; an adapter on it is trainable.

    Under ZeRO 3, call this once the trainer's arguments exist, or within :func:`zero3_loading`.
    """
    four_bits = in_four_bits(config)
    model = load_model(
        source,
        precision=config.precision,
        attention=config.attention,
        trust_remote_code=config.trust_remote_code,
        for_training=True,
        four_bits=four_bits,
    )
    return ready_for_adapters(model, gradient_checkpointing=config.gradient_checkpointing) if four_bits else model
