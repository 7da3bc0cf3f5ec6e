"""What samples are made from, and how: records of the model and the prompts, without torch."""

from __future__ import annotations

from data_registry.core.manifest import InputRecord
from pipelines.configs.sample import SampleConfig
from pipelines.core.option_files import option_file_inputs
from pipelines.evaluation.answering.vllm_backend import check_installed
from pipelines.evaluation.contract.answer import Decoding
from pipelines.models.reference import ModelSource
from pipelines.sampling.prompts import read_prompts


def sample_inputs(config: SampleConfig, source: ModelSource) -> list[InputRecord]:
    """Records of all that the samples are made from.

    Raises:
        OgpsaError: the data set or the template cannot be read, or vLLM is asked for and not installed.
    """
    if config.backend == "vllm":
        check_installed()
    prompts = read_prompts(config.data, config.num_samples, config.seed)
    if config.grade != "none":
        from pipelines.sampling.grading import Grader, references_of

        references_of(Grader(config.grade, config.answer_after), config.grade, prompts, str(config.data))
    return [source.input_record(), prompts.record, *option_file_inputs({"chat template": config.chat_template})]


def decoding_of(config: SampleConfig) -> Decoding:
    """How answers are made."""
    return Decoding(config.max_new_tokens, config.temperature, config.top_p, config.seed)
