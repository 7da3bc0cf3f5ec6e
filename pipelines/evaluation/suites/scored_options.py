"""The losses of several answers to the same prompts, which are compared: none of them may be cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from data_registry.core.errors import InputError
from pipelines.core.progress import Progress
from pipelines.evaluation.contract.results import SuiteResults, SuiteSettings
from pipelines.evaluation.contract.suite import SuiteRequest
from pipelines.evaluation.statistics.figures import Scores, share
from pipelines.evaluation.suites.prepared_data import PreparedData
from pipelines.evaluation.suites.sample_losses import SampleLoss, sample_losses
from pipelines.evaluation.suites.scored_rows import length_option, scored_length
from pipelines.models.limits import limits_of_model
from pipelines.tokens.conversations import encode_batch
from pipelines.tokens.fitting import check_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def option_losses(
    data: PreparedData,
    options: Sequence[Sequence[str]],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    request: SuiteRequest,
) -> list[list[SampleLoss]]:
    """The loss of each option as the answer to its row's conversation.

    Args:
        data: the data set, whose conversations end with an answer that the options take the place of.
        options: the options of each row.
        model: the model.
        tokenizer: its tokenizer, with the chat template.
        request: batch size and longest sequence.

    Raises:
        InputError: an option does not fit, with the number of its row.
        NumericsError: a loss is not finite.
    """
    conversations: list[list[Any]] = []
    places = []
    for number, row, texts in zip(data.numbers, data.rows, options, strict=True):
        for text in texts:
            conversations.append([*row["messages"][:-1], {"role": "assistant", "content": text}])
            places.append(number)
    starts = [len(conversation) - 1 for conversation in conversations]
    max_length = scored_length(model, request.max_length)
    encoded = encode_batch(conversations, tokenizer, max_length, train_from=starts)
    for number, sample in zip(places, encoded, strict=True):
        if sample.num_cut:
            # If one of the choices is cut, they cannot be compared.
            raise InputError(
                f"row {number} of '{data.path}' is longer than {max_length} tokens, which "
                + length_option(model, request.max_length),
                fix=f"leave such rows out:  ogpsa prepare-data DATA --tokenizer {tokenizer.name_or_path} "
                f"--max-length {max_length} --drop-too-long --out DIR",
            )
    check_token_ids((sample.input_ids for sample in encoded), limits_of_model(model).num_embeddings, tokenizer)
    samples = [(sample.input_ids, sample.labels) for sample in encoded]
    with Progress(f"scoring {data.name}", total=len(samples), unit="choices") as progress:
        losses = iter(sample_losses(model, samples, batch_size=request.batch_size, progress=progress.advance))
    return [[next(losses) for _ in texts] for texts in options]


def accuracy_results(
    suite: str, data: PreparedData, settings: SuiteSettings, scores: Scores, request: SuiteRequest
) -> SuiteResults:
    """The results of a suite on a data set whose one figure is how often the right option was chosen.

    Args:
        suite: the name of the suite.
        data: the data set.
        settings: how it was scored.
        scores: ``[N]``, 1 for each row whose right option was chosen, else 0.
        request: resamples and seed of the interval.
    """
    accuracy = share(
        "accuracy", scores, data.name, higher_is_better=True, resamples=request.resamples, seed=request.seed
    )
    return SuiteResults(suite=f"{suite}/{data.name}", settings=settings, metrics=(accuracy,))
