"""Suite ``capability``: any task of lm-eval by name, its own or of a directory, measured by lm-eval itself."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError, InputError, OgpsaError, is_out_of_memory
from data_registry.core.manifest import InputRecord
from data_registry.hub import network
from pipelines.core.progress import Progress
from pipelines.evaluation.contract.results import hash_items, hash_text
from pipelines.evaluation.contract.suite import SuiteOutcome, SuiteRequest
from pipelines.evaluation.lm_eval.results import FAMILY, convert
from pipelines.evaluation.lm_eval.trust import refuse_programs, sandboxed_templates
from pipelines.models.limits import limits_of_model
from pipelines.tokens.fitting import check_token_ids
from pipelines.tokens.rendering import blamed_on_template

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

NAME = "capability"


class CapabilitySuite:
    """Tasks of lm-eval.

    Raises:
        ConfigError: lm-eval is not installed, no task is named, or there is none of that name.
        InputError: a task's data cannot be read.
    """

    def __init__(self, request: SuiteRequest) -> None:
        if importlib.util.find_spec("lm_eval") is None:
            raise ConfigError(
                "suite 'capability' needs lm-eval, which is not installed",
                fix="install the extra:  pip install -c constraints.txt -e '.[eval]'",
            )
        if not request.tasks:
            raise ConfigError("suite 'capability' needs tasks of lm-eval: --task NAME, such as --task mmlu")
        if request.task_dir is not None and not request.task_dir.is_dir():
            raise InputError(f"the task directory '{request.task_dir}' does not exist")
        self._request = request

    def inputs(self) -> list[InputRecord]:
        """Each task: its configuration and its documents."""
        limit = self._request.num_samples
        return [
            InputRecord(
                role=f"task {name}", path=name, kind="suite",
                fingerprint=hash_text(_configuration(task) + hash_items(_plain(doc) for doc in _first(task, limit))),
            )
            for name, task in self._loaded["tasks"].items()
        ]  # fmt: skip

    def plan(self) -> list[tuple[str, str]]:
        """The tasks with their documents and shots."""
        limit = self._request.num_samples
        return [
            (
                f"{FAMILY}/{name}",
                f"{len(_first(task, limit))} items, {self._shots(task)} shots, {task.get_config('output_type')}, "
                f"{'with' if self._request.chat_prompts else 'without'} chat template",
            )
            for name, task in self._loaded["tasks"].items()
        ]

    def run(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[SuiteOutcome]:
        """Measure a model as lm-eval does.

        Raises:
            InputError: a task wants to execute what the model writes, or the chat template is missing.
        """
        from lm_eval import evaluate

        request = self._request
        self._refuse_unsafe()
        template = self._template(tokenizer)
        with _quiet(), self._templates, _adapter(model, tokenizer, request) as adapter, self._blamed_on_tasks():
            found = evaluate(
                lm=adapter,
                task_dict=self._prepared(),
                limit=request.num_samples,
                bootstrap_iters=request.resamples,
                apply_chat_template=request.chat_prompts,
                fewshot_as_multiturn=request.chat_prompts,
                system_instruction=request.system,
            )
        if request.system is not None:
            found["system_instruction_sha"] = hash_text(request.system)
        if template is not None:
            found["chat_template_sha"] = hash_text(template)
        outcomes = convert(found, found["samples"], resamples=request.resamples, seed=request.seed)
        return [SuiteOutcome(outcome.results, outcome.items) for outcome in outcomes]

    @cached_property
    def _manager(self) -> Any:
        """lm-eval's list of tasks; its own are read only where a name is not of the directory."""
        with _quiet():
            from lm_eval.tasks import TaskManager

            folder = self._request.task_dir
            if folder is not None:
                own = TaskManager(include_path=str(folder), include_defaults=False)
                self._check_trust(own)
                if set(self._request.tasks) <= set(own.all_tasks) and _is_closed(own, self._request.tasks):
                    return own
            every = TaskManager(include_path=str(folder) if folder is not None else None)
            self._check_trust(every)
            return every

    def _check_trust(self, manager: Any) -> None:
        # Before anything is loaded: loading a task imports what it names.
        if not self._request.trust_remote_code:
            refuse_programs(manager, self._request.tasks)

    @property
    def _templates(self) -> contextlib.AbstractContextManager[None]:
        is_foreign = self._request.task_dir is not None and not self._request.trust_remote_code
        return sandboxed_templates() if is_foreign else contextlib.nullcontext()

    @cached_property
    def _loaded(self) -> Mapping[str, Any]:
        names, known = self._request.tasks, self._manager.all_tasks
        problems = [f"lm-eval has no task '{name}'{suggest(name, known)}" for name in names if name not in known] + [
            f"task '{name}' is given twice" for name in dict.fromkeys(names) if names.count(name) > 1
        ]
        if problems:
            raise ConfigError(problems, fix="lm-eval ls tasks  lists them; --task-dir DIR adds your own")
        network.settle()
        try:
            with _quiet(), self._templates:
                loaded: Mapping[str, Any] = self._manager.load(list(names))
                for task in loaded["tasks"].values():
                    _first(task, 1)
                    self._check_shots(task)
        except OgpsaError:
            raise
        except Exception as error:  # tasks are programs, and fail in any way
            reason = " ".join(str(error).split()) or "no message"
            raise InputError(
                f"the tasks {', '.join(names)} cannot be loaded: {type(error).__name__}: {reason[:300]}",
                fix="without a network, fetch their data beforehand (the same command with --download-only does)"
                if isinstance(error, OSError)
                else None,
            ) from error
        return loaded

    def _check_shots(self, task: Any) -> None:
        """Refuse more worked examples than there are: lm-eval would notice with the model in memory.

        Raises:
            ConfigError: there are fewer; the error says how many.
        """
        shots, examples = self._shots(task), getattr(task, "fewshot_cfg", None)
        if shots == 0 or examples is None:
            return
        # An example is never the very item that is asked.
        usable = len(list(task.fewshot_docs())) - (examples.split == task.config.test_split)
        if shots > usable:
            raise ConfigError(
                f"task '{task.config.task}' has {usable} documents for worked examples, and {shots} are asked for",
                fix="give a smaller number:  --shots N",
            )

    @contextlib.contextmanager
    def _blamed_on_tasks(self) -> Iterator[None]:
        """A context for lm-eval at work: what fails in there is an error of the tasks, or of lm-eval.

        Raises:
            InputError: something failed that is no want of memory or of space, and no error of ours.
        """
        try:
            yield
        except OgpsaError:
            raise
        except Exception as error:  # tasks are programs, and fail in any way
            if is_out_of_memory(error) or isinstance(error, OSError):
                raise
            reason = " ".join(str(error).split()) or "no message"
            raise InputError(
                f"lm-eval fails on the tasks {', '.join(self._request.tasks)}: {type(error).__name__}: {reason[:300]}",
                fix="mend the task, or try it with lm-eval itself; --verbose shows where it fails",
            ) from error

    def _prepared(self) -> Mapping[str, Any]:
        """The tasks, loaded anew since evaluating changes them, with shots and seeds set as lm-eval's command does."""
        import numpy as np
        import torch
        from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

        random.seed(DEFAULT_RANDOM_SEED)
        np.random.seed(DEFAULT_OTHER_SEED)
        torch.manual_seed(DEFAULT_OTHER_SEED)
        loaded: Mapping[str, Any] = self._manager.load(list(self._request.tasks))
        for task in loaded["tasks"].values():
            task.set_config(key="num_fewshot", value=self._shots(task))
            task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
        return loaded

    def _shots(self, task: Any) -> int:
        own = task.get_config("num_fewshot")
        # As lm-eval does: a task that says 0 itself keeps it.
        return int((own or 0) if self._request.shots is None or own == 0 else self._request.shots)

    def _refuse_unsafe(self) -> None:
        unsafe = [name for name, task in self._loaded["tasks"].items() if getattr(task, "UNSAFE_CODE", False)]
        if unsafe:
            raise InputError(
                f"the tasks {', '.join(unsafe)} execute what the model writes, which ogpsa does not",
                fix="run lm-eval itself where that is safe; ogpsa report takes its result files",
            )

    def _template(self, tokenizer: PreTrainedTokenizerBase) -> str | None:
        from pipelines.tokens.chat_template import chat_template_of

        return chat_template_of(tokenizer) if self._request.chat_prompts else None


def _is_closed(manager: Any, names: Sequence[str]) -> bool:
    """Whether a list of tasks has all that the named ones are made of: a group may hold tasks of lm-eval."""
    try:
        manager.load(list(names))
    except KeyError:
        return False
    except Exception:
        logger.debug("loading %s failed, which is reported when they are used", names, exc_info=True)
    return True


def _first(task: Any, limit: int | None) -> Sequence[Any]:
    docs = task.eval_docs
    return docs if limit is None else [docs[index] for index in range(min(limit, len(docs)))]


def _plain(doc: Any) -> Any:
    return json.loads(json.dumps(doc, default=repr, sort_keys=True))


def _configuration(task: Any) -> str:
    # Functions are given as their source where there is one; otherwise the name of their type must do.
    return json.dumps(task.dump_config(), default=lambda value: type(value).__name__, sort_keys=True)


@contextlib.contextmanager
def _adapter(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, request: SuiteRequest) -> Iterator[Any]:
    """lm-eval's adapter of a loaded model. On a terminal its own bars show; elsewhere a line now and then."""
    from lm_eval.models.huggingface import HFLM

    is_terminal = sys.stderr.isatty()
    embeddings = limits_of_model(model).num_embeddings
    with Progress(NAME, unit="sequences") if not is_terminal else contextlib.nullcontext() as progress:

        class Counting(HFLM):
            def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
                return super().loglikelihood(requests, disable_tqdm=disable_tqdm or not is_terminal)

            def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
                return super().generate_until(requests, disable_tqdm=disable_tqdm or not is_terminal)

            def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
                return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm or not is_terminal)

            def apply_chat_template(self, *args: Any, **kwargs: Any) -> str:
                with blamed_on_template():
                    return str(super().apply_chat_template(*args, **kwargs))

            def _model_call(self, inps: Any, *args: Any, **kwargs: Any) -> Any:
                check_token_ids(inps.tolist(), embeddings, tokenizer)
                return _count(progress, len(inps), super()._model_call(inps, *args, **kwargs))

            def _model_generate(self, context: Any, *args: Any, **kwargs: Any) -> Any:
                check_token_ids(context.tolist(), embeddings, tokenizer)
                return _count(progress, len(context), super()._model_generate(context, *args, **kwargs))

        log = logging.getLogger("lm_eval.models.huggingface")
        before = log.level
        # That the model is loaded already is no news.
        log.setLevel(logging.ERROR)
        adapter = Counting(pretrained=model, tokenizer=tokenizer, batch_size=request.batch_size)
        log.setLevel(before)
        yield adapter


def _count(progress: Progress | None, sequences: int, found: Any) -> Any:
    if progress is not None:
        progress.advance(sequences)
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep lm-eval's chatter off the log; its warnings stay."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(max(logging.WARNING, logging.getLogger().level))
    try:
        yield
    finally:
        logger.setLevel(before)
