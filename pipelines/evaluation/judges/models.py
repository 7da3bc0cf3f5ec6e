"""Judge models: any instruction-tuned model or sequence classifier from a directory or the hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_registry.core.errors import InputError, first_line, is_out_of_memory
from data_registry.core.manifest import InputRecord
from pipelines.core.job import on_main
from pipelines.core.progress import Progress
from pipelines.engine import processes
from pipelines.evaluation.answering.asking import Asked, answer_all
from pipelines.evaluation.answering.backend import TransformersBackend
from pipelines.evaluation.contract.answer import Decoding, StoredAnswer
from pipelines.evaluation.contract.suite import PromptItem
from pipelines.evaluation.contract.verdict import ERROR, Judge, StoredVerdict
from pipelines.evaluation.judges.formats import UNSURE, JudgeFormat, choose_format, with_card_prompt
from pipelines.models import hub
from pipelines.models.files import CONFIG, check_weight_files, read_json
from pipelines.models.limits import limits_of_model
from pipelines.models.loading import load_model
from pipelines.models.reference import ModelSource, fetch_weights, model_directory, resolve_model
from pipelines.tokens.chat_template import render_prompt
from pipelines.tokens.fitting import check_token_ids
from pipelines.tokens.rendering import render_template
from pipelines.tokens.tokenizer import load_source_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CARD = "README.md"


@dataclass(frozen=True)
class JudgeOptions:
    """How a judge model runs.

    Attributes:
        batch_size: most answers at a time.
        precision: ``fp32`` or ``bf16``.
        folder: the folder in which verdicts are kept while the judge is at work.
        trust_remote_code: run code that the judge's repository brings.
    """

    batch_size: int
    precision: str
    folder: Path
    trust_remote_code: bool = False


def create_model_judge(reference: str, asked_format: str | None, options: JudgeOptions) -> Judge:
    """The judge that a model is; its weights are not loaded yet.

    Raises:
        InputError: there is no such model, or its card does not say how it is asked.
        ConfigError: nothing tells how its verdicts are to be read.
    """
    source = resolve_model(reference)
    config = read_json(source.directory / CONFIG) if not source.is_adapter else {}
    is_classifier = any("ForSequenceClassification" in str(name) for name in config.get("architectures") or ())
    classes = [str(name) for name in (config.get("id2label") or {}).values()] if is_classifier else []
    found = choose_format(asked_format, source.name, classes)
    if is_classifier:
        return ClassifierJudge(source, found, options)
    if found.prompt is None and found.chat != "conversation":
        if found.placeholders is None:
            raise InputError(
                f"the judge format '{found.name}' has no prompt, which a model that writes its verdict needs",
                fix="add to the format:  prompt: ... {prompt} ... {answer} ...",
            )
        folder = source.directory if source.is_local else hub.fetch(source.path_or_id, source.revision, [_CARD])
        found = with_card_prompt(found, folder / _CARD)
    return WritingJudge(source, found, options)


class _ModelJudge:
    """What judges with a model have in common."""

    def __init__(self, source: ModelSource, judge_format: JudgeFormat, options: JudgeOptions) -> None:
        self._source, self._format, self._options = source, judge_format, options

    @property
    def name(self) -> str:
        """See ``Judge``."""
        return f"{self._format.name}:{self._source.name}"

    @property
    def groups(self) -> frozenset[str]:
        """See ``Judge``."""
        return self._format.groups

    def describe(self) -> str:
        """See ``Judge``: the model, and how it is asked and read."""
        told = hashlib.sha256(self._format.model_dump_json().encode()).hexdigest()
        return f"{self.name}, model {self._source.fingerprint()[:12]}, format {told[:12]}, {self._options.precision}"

    def inputs(self) -> list[InputRecord]:
        """See ``Judge``."""
        told = hashlib.sha256(self._format.model_dump_json().encode()).hexdigest()
        asked = InputRecord(role="judge format", path=self._format.name, kind="format", fingerprint=told)
        return [self._source.input_record("judge"), asked]

    def fetch(self) -> None:
        """See ``Judge``."""
        fetch_weights(self._source)

    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return load_source_tokenizer(self._source, trust_remote_code=self._options.trust_remote_code)

    def _question(self, answer: StoredAnswer) -> str:
        """What the judge is asked about an answer, where it is asked in words."""
        given = answer.answer or ""
        if answer.context and self._format.context_prompt is not None:
            return self._format.question_in_context(answer.context, answer.request, given)
        return self._format.question(answer.question, given)

    def _verdict(self, answer: StoredAnswer, words: str) -> StoredVerdict:
        """What the judge's words mean; words that mean nothing are an error, never a verdict."""
        outcome = self._format.read(answer.group, words)
        label = outcome if outcome != UNSURE else None
        return StoredVerdict(answer.suite, answer.id, self.name, outcome or ERROR, label, words)


class WritingJudge(_ModelJudge):
    """A model that writes its verdict."""

    def judge(self, answers: Sequence[StoredAnswer]) -> list[StoredVerdict]:
        """See ``Judge``; collective, resumable like any generation."""
        tokenizer = self._tokenizer()
        texts = self._texts(answers, tokenizer)
        items = [PromptItem(answer.suite, answer.id, answer.group, ()) for answer in answers]
        model = load_model(
            self._source, precision=self._options.precision, trust_remote_code=self._options.trust_remote_code
        )
        model.to(processes.start())
        ids = [self._ids(text, tokenizer) for text in texts]
        check_token_ids(ids, limits_of_model(model).num_embeddings, tokenizer)
        decoding = Decoding(self._format.max_new_tokens)
        written = answer_all(
            Asked(items, texts, ids),
            tokenizer,
            TransformersBackend(model, tokenizer, decoding),
            decoding,
            folder=self._options.folder,
            identity=json.dumps({"judge": self.describe()}),
            batch_size=self._options.batch_size,
            label="judging",
        )
        return [
            self._verdict(answer, words.answer)
            if words.answer is not None
            else StoredVerdict(answer.suite, answer.id, self.name, ERROR, None, "(fills the judge's context)")
            for answer, words in zip(answers, written, strict=True)
        ]

    def _texts(self, answers: Sequence[StoredAnswer], tokenizer: PreTrainedTokenizerBase) -> list[str]:
        if self._format.chat == "none":
            return [self._question(answer) for answer in answers]
        is_conversation = self._format.chat == "conversation"
        in_parts = _writes_parts(tokenizer, 2 if is_conversation else 1)
        turns = [
            (answer.question, answer.answer or "") if is_conversation else (self._question(answer),)
            for answer in answers
        ]
        return [render_prompt(_messages(texts, in_parts=in_parts), tokenizer) for texts in turns]

    def _ids(self, text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        # A chat template, and some cards' prompts, have written the special tokens already.
        written = self._format.chat != "none" or (
            tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
        )
        return list(tokenizer(text, add_special_tokens=not written)["input_ids"])


def _writes_parts(tokenizer: PreTrainedTokenizerBase, num_turns: int) -> bool:
    """Whether the judge's template wants texts as lists of parts; one for images too, as Llama Guard 3 1B's, does.

    Raises:
        InputError: the template leaves turns out either way: the judge would call everything safe.
    """
    probes = ("ogpsa asks this", "ogpsa answers that")[:num_turns]
    for in_parts in (False, True):
        text = render_template(tokenizer, _messages(probes, in_parts=in_parts), add_generation_prompt=True)
        if all(probe in text for probe in probes):
            return in_parts
    raise InputError(
        "the judge's chat template leaves the conversation out",
        where=tokenizer.name_or_path,
        fix="use another judge, or write what it is asked into a file with 'chat: none': --judge-format FILE.yaml",
    )


def _messages(turns: Sequence[str], *, in_parts: bool) -> list[dict[str, Any]]:
    return [
        {"role": role, "content": [{"type": "text", "text": text}] if in_parts else text}
        for role, text in zip(("user", "assistant"), turns, strict=False)
    ]


class ClassifierJudge(_ModelJudge):
    """A sequence classifier, whose class is its verdict."""

    def judge(self, answers: Sequence[StoredAnswer]) -> list[StoredVerdict]:
        """See ``Judge``; by the first process alone."""
        return on_main(lambda: self._classify(answers))

    def _classify(self, answers: Sequence[StoredAnswer]) -> list[StoredVerdict]:
        import torch

        tokenizer, model = self._tokenizer(), self._load()
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id
        limits = limits_of_model(model)
        longest = limits.positions
        verdicts = []
        with Progress("judging", total=len(answers), unit="answers") as progress, torch.inference_mode():
            for start in range(0, len(answers), self._options.batch_size):
                batch = answers[start : start + self._options.batch_size]
                encoded = [self._encode(answer, tokenizer) for answer in batch]
                fits = [
                    index for index, row in enumerate(encoded) if longest is None or len(row["input_ids"]) <= longest
                ]
                probabilities = {}
                check_token_ids([row["input_ids"] for row in encoded], limits.num_embeddings, tokenizer)
                if fits:
                    padded = tokenizer.pad([encoded[index] for index in fits], return_tensors="pt").to(model.device)
                    rows = model(**padded).logits.float().softmax(-1).cpu()
                    probabilities = dict(zip(fits, rows, strict=True))
                for index, answer in enumerate(batch):
                    verdicts.append(self._read(answer, probabilities.get(index), model.config.id2label))
                progress.advance(len(batch))
        return verdicts

    def _encode(self, answer: StoredAnswer, tokenizer: PreTrainedTokenizerBase) -> Any:
        if self._format.prompt is None:
            return tokenizer(answer.question, answer.answer or "")
        return tokenizer(self._question(answer))

    def _read(self, answer: StoredAnswer, probabilities: Any, classes: dict[int, str]) -> StoredVerdict:
        if probabilities is None:
            return StoredVerdict(answer.suite, answer.id, self.name, ERROR, None, "(fills the judge's context)")
        best = int(probabilities.argmax())
        share = float(probabilities[best])
        if not share >= 0.0:  # NaN
            return StoredVerdict(answer.suite, answer.id, self.name, ERROR, None, "(its probabilities are not finite)")
        found = self._verdict(answer, str(classes[best]))
        outcome = UNSURE if found.outcome != ERROR and share < self._format.unsure_below else found.outcome
        return StoredVerdict(answer.suite, answer.id, self.name, outcome, found.label, f"{classes[best]} {share:.3f}")

    def _load(self) -> Any:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForSequenceClassification

        directory = model_directory(self._source)
        check_weight_files(directory)
        try:
            model, report = AutoModelForSequenceClassification.from_pretrained(
                directory,
                use_safetensors=True,
                output_loading_info=True,
                dtype=torch.float32 if self._options.precision == "fp32" else torch.bfloat16,
                trust_remote_code=self._options.trust_remote_code,
            )
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError) as error:
            if is_out_of_memory(error):
                raise
            raise InputError(
                f"the judge cannot be loaded: {first_line(error)}", where=str(directory), fix="download it again"
            ) from error
        if report["missing_keys"]:
            missing = sorted(report["missing_keys"])
            raise InputError(
                f"{len(missing)} weights of the judge are missing from its files, such as {missing[0]}",
                where=str(directory),
                fix="use a model that was trained as a classifier",
            )
        return model.to(processes.start()).eval()
