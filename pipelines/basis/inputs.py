"""What a basis is made from: records of the model and of the reference data sets, without torch."""

from __future__ import annotations

from data_registry.core.errors import ConfigError
from data_registry.core.manifest import InputRecord, as_input
from data_registry.prepared import prepared_table
from pipelines.basis.objectives.finding import reference_loss
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.core.option_files import option_file_inputs
from pipelines.models.four_bits import check_four_bits
from pipelines.models.lora import refuse_adapters_on_adapter
from pipelines.models.reference import ModelSource


def basis_inputs(config: BuildBasisConfig, source: ModelSource) -> list[InputRecord]:
    """Records of the model and the reference data sets.

    Raises:
        ConfigError: two references have the same name, or fresh adapters are asked for on top of an adapter.
    """
    check_four_bits(config)
    refuse_adapters_on_adapter(config, source)
    names = [path.name for path in config.reference]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigError(
            f"two references are both named '{sorted(twice)[0]}'; objectives are named after their directories",
            fix="rename one of the data sets",
        )
    records = [source.input_record()]
    for path in config.reference:
        _, manifest = prepared_table(path, task=task_of(config))
        records.append(as_input(role_of(path.name), path, manifest))
    return [*records, *option_file_inputs({"chat template": config.chat_template, "DeepSpeed file": config.deepspeed})]


def role_of(name: str) -> str:
    """The role of a reference data set in the manifest of a basis."""
    return f"reference {name}"


def task_of(config: BuildBasisConfig) -> str:
    """The task of the data sets that the objective takes."""
    return reference_loss(config.objective).task
