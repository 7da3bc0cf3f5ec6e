"""The work of ``ogpsa score-tokens``: answers read, scored by a rule, scores turned into weights, all of it written."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from data_registry.core.errors import InputError
from data_registry.core.manifest import InputRecord, as_input
from data_registry.prepared import load_prepared
from pipelines.configs.score_tokens import ScoreTokensConfig
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.job import is_main, on_main
from pipelines.core.option_files import option_file_inputs
from pipelines.evaluation.contract.results import hash_text, hash_tokenizer
from pipelines.models.limits import limits_of_source
from pipelines.models.loading import check_loadable
from pipelines.models.reference import ModelSource, resolve_model
from pipelines.samples.tokens import Tokens
from pipelines.token_weights import maps
from pipelines.token_weights.answers import Answers, read_answers, sides_of
from pipelines.token_weights.description import TokenWeightsDescription
from pipelines.token_weights.scoring import label_scores
from pipelines.token_weights.solutions import check_solutions, edit_flags, rewriter_rows
from pipelines.token_weights.storage import Numbers, WeightedAnswer, write_token_weights
from pipelines.token_weights.texts import shown_answer
from pipelines.tokens.chat_template import chat_template_of
from pipelines.tokens.fitting import Bounds, check_token_ids
from pipelines.tokens.tokenizer import load_source_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_PARTS: Final = "scores"
_NUM_SHOWN: Final = 8
_QUANTILES: Final = (0, 5, 25, 50, 75, 95, 100)


@dataclass(frozen=True)
class Sources:
    """The models of a command.

    Attributes:
        model: the model that gives scores, and whose tokenizer is used.
        against: the model that it is held against, or None.
    """

    model: ModelSource
    against: ModelSource | None = None


def find_sources(config: ScoreTokensConfig) -> Sources:
    """The models, found.

    Raises:
        OgpsaError: there is no such model.
    """
    model = resolve_model(config.model, revision=config.revision)
    return Sources(model, None if config.against is None else resolve_model(config.against))


def token_weights_inputs(config: ScoreTokensConfig, sources: Sources) -> list[InputRecord]:
    """Records of all that the weights are made from.

    Raises:
        OgpsaError: the data set does not have what the rule needs, or a model cannot be used.
    """
    rows, manifest = load_prepared(config.data)
    if len(rows) == 0:
        raise InputError(f"the data set '{config.data}' is empty")
    sides = sides_of(config, str(manifest.summary["task"]))
    check_solutions(config.rule, sides, rows.column_names, str(config.data))
    tokenizer = _tokenizer(config, sources.model)
    chat_template_of(tokenizer)
    records = sources.model.input_records()
    if config.asks_model:
        check_loadable(sources.model, trust_remote_code=config.trust_remote_code)
    if sources.against is not None:
        check_loadable(sources.against, trust_remote_code=config.trust_remote_code)
        _check_same_tokens(tokenizer, sources, config)
        records += sources.against.input_records("against")
    records.append(as_input("data", config.data, manifest))
    return [*records, *option_file_inputs({"chat template": config.chat_template, "DeepSpeed file": config.deepspeed})]


def _tokenizer(config: ScoreTokensConfig, source: ModelSource) -> PreTrainedTokenizerBase:
    return load_source_tokenizer(source, chat_template=config.chat_template, trust_remote_code=config.trust_remote_code)


def _check_same_tokens(tokenizer: PreTrainedTokenizerBase, sources: Sources, config: ScoreTokensConfig) -> None:
    """Refuse a second model to which the same numbers mean other tokens."""
    assert sources.against is not None
    other = load_source_tokenizer(sources.against, trust_remote_code=config.trust_remote_code)
    here, there = ({number: token for token, number in each.get_vocab().items()} for each in (tokenizer, other))
    if here == there:
        return
    number = min(each for each in {*here, *there} if here.get(each) != there.get(each))
    raise InputError(
        f"--against '{sources.against.path_or_id}' has another tokenizer than '{sources.model.path_or_id}': their "
        "log-probabilities are not of the same tokens",
        where=f"token {number} is {there.get(number)!r} there and {here.get(number)!r} here",
        fix="hold models of one family against each other, with the tokenizer of training",
    )


def warn_of_polarity(config: ScoreTokensConfig) -> None:
    """Say what ``--map probability`` means, where it is asked for."""
    if config.map == "probability" and config.asks_model:
        logger.warning(
            "--map probability gives the most weight to the tokens that the model would keep; it is what ALLO's "
            "released code computes. To weigh the tokens that it would change, use --map below or complement."
        )


def make_token_weights(
    config: ScoreTokensConfig, sources: Sources, device: torch.device, writer: ArtifactWriter
) -> None:
    """Fill the artifact. Collective: all processes compute log-probabilities, the first writes.

    Raises:
        OgpsaError: a row or a model cannot be used, or no token would count.
        Preempted: a process was asked to stop; what was computed is stored.
    """
    if is_main():
        warn_of_polarity(config)
    tokenizer = _tokenizer(config, sources.model)
    limits = limits_of_source(sources.model, trust_remote_code=config.trust_remote_code)
    bounds = Bounds(config.longest, config.drop_too_long, limits)
    found = read_answers(config, tokenizer, bounds)
    scores, against = _scores(config, sources, found, tokenizer, bounds, device, writer)
    on_main(lambda: _finish(config, found, scores, against, tokenizer, bounds, writer))


def _finish(
    config: ScoreTokensConfig,
    found: Answers,
    scores: Sequence[Numbers],
    against: Sequence[Numbers] | None,
    tokenizer: PreTrainedTokenizerBase,
    bounds: Bounds,
    writer: ArtifactWriter,
) -> None:
    """Make weights of scores, and write both."""
    answers = [
        WeightedAnswer(
            answer.row, answer.side, answer.ids, scores[index], weights_of(config, scores[index]),
            None if against is None else against[index],
        )
        for index, answer in enumerate(found.answers)
    ]  # fmt: skip
    try:
        _check_counts(config, answers)
    except InputError:
        # With other options all is computed anew, so that nothing of it is worth keeping.
        shutil.rmtree(writer.path / _PARTS, ignore_errors=True)
        raise
    description = _description(config, writer.inputs, found, answers, tokenizer)
    write_token_weights(writer.path, description, answers)
    shutil.rmtree(writer.path / _PARTS, ignore_errors=True)
    writer.summary = _summary(description, answers, bounds)


def _scores(
    config: ScoreTokensConfig,
    sources: Sources,
    found: Answers,
    tokenizer: PreTrainedTokenizerBase,
    bounds: Bounds,
    device: torch.device,
    writer: ArtifactWriter,
) -> tuple[list[Numbers], list[Numbers] | None]:
    """The raw scores of every answer, and the log-probabilities by the model that the rule compares with, if any.

    Collective; the first process gets them.
    """
    if config.rule == "edit":
        flags: list[list[bool]] = []
        on_main(lambda: flags.extend(edit_flags(found, tokenizer, bounds.cut_at)))
        return [np.array(of_answer, dtype=np.float32) for of_answer in flags], None
    folder = writer.path / _PARTS
    if config.rule == "rewriter":
        rows = rewriter_rows(found, tokenizer, bounds.limits)
        log_probs = label_scores(rows, config, sources.model, device, folder)
        return [np.exp(of_answer) for of_answer in log_probs], None
    rows = [(answer.input_ids, answer.labels) for answer in found.answers]
    if sources.against is not None:
        _check_room(config, sources.against, rows, found, tokenizer)
    log_probs = label_scores(rows, config, sources.model, device, folder)
    if sources.against is None:
        return log_probs, log_probs
    others = label_scores(rows, config, sources.against, device, folder)
    return [here - there for here, there in zip(log_probs, others, strict=True)], others


def _check_room(
    config: ScoreTokensConfig,
    source: ModelSource,
    rows: Sequence[Tokens],
    found: Answers,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Refuse rows that the model of ``--against`` has no room for."""
    limits = limits_of_source(source, trust_remote_code=config.trust_remote_code)
    check_token_ids([ids for ids, _ in rows], limits.num_embeddings, tokenizer)
    longest = max(range(len(rows)), key=lambda index: len(rows[index][0]))
    if limits.positions is not None and len(rows[longest][0]) > limits.positions:
        raise InputError(
            f"a row has {len(rows[longest][0])} tokens, and --against has {limits.positions} positions",
            where=f"{found.name}, row {found.numbers[found.answers[longest].row]}",
            fix=f"--max-length {limits.positions} cuts such rows, in training too",
        )


def weights_of(config: ScoreTokensConfig, scores: Numbers) -> Numbers:
    """The weights of an answer's tokens, float32, from their raw scores."""
    if config.rule == "edit":
        return scores
    if config.map == "top":
        return maps.top(scores, config.top, config.order)
    if config.rule == "ratio":
        return maps.below(scores, config.bound)
    probabilities = np.exp(scores) if config.rule == "logprob" else scores
    if config.map == "below":
        return maps.below(probabilities, config.bound)
    return {"probability": maps.probability, "complement": maps.complement, "clip": maps.clip}[config.map](
        probabilities
    )


def _check_counts(config: ScoreTokensConfig, answers: Sequence[WeightedAnswer]) -> None:
    if not any(answer.weight.any() for answer in answers):
        raise InputError(
            f"no token would count: the weights of all {sum(len(answer.ids) for answer in answers)} tokens are 0",
            fix="raise --threshold, or choose a share of each answer with --map top"
            if config.asks_model
            else "look at the data: their answers do not differ",
        )


def _description(
    config: ScoreTokensConfig,
    inputs: Sequence[InputRecord],
    found: Answers,
    answers: Sequence[WeightedAnswer],
    tokenizer: PreTrainedTokenizerBase,
) -> TokenWeightsDescription:
    scores, weights = (np.concatenate([getattr(answer, name) for answer in answers]) for name in ("score", "weight"))
    by_role = {record.role: record.path for record in inputs}
    used = "edit" if config.rule == "edit" else config.map
    return TokenWeightsDescription(
        rule=config.rule,
        map=used,
        threshold=config.bound if used == "below" else None,
        top=config.top if used == "top" else None,
        order=config.order if used == "top" else None,
        sides=list(dict.fromkeys(answer.side for answer in answers)),
        model=by_role["model"],
        against=by_role.get("against"),
        tokenizer_hash=hash_tokenizer(tokenizer),
        template_hash=hash_text(chat_template_of(tokenizer)),
        max_length=config.longest,
        drop_too_long=config.drop_too_long,
        num_rows=len(found.rows),
        num_tokens=len(weights),
        share_nonzero=float(np.count_nonzero(weights) / len(weights)),
        score_quantiles={f"p{share}": float(np.percentile(scores, share)) for share in _QUANTILES},
        first=[shown_answer(answer, tokenizer) for answer in answers[:_NUM_SHOWN]],
    )


def _summary(description: TokenWeightsDescription, answers: Sequence[WeightedAnswer], bounds: Bounds) -> dict[str, Any]:
    empty = sum(not answer.weight.any() for answer in answers)
    return {
        "rule": description.rule,
        "map": description.map,
        **{name: value for name in ("threshold", "top", "order") if (value := getattr(description, name)) is not None},
        "sides": description.sides,
        "rows": description.num_rows,
        "tokens": description.num_tokens,
        "share_nonzero": description.share_nonzero,
        "mean_weight": float(np.concatenate([answer.weight for answer in answers]).mean()),
        "score": description.score_quantiles,
        **({"answers_without_weight": empty} if empty else {}),
        **({"left_out": dict(bounds.left_out)} if bounds.left_out else {}),
    }
