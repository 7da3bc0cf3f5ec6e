"""Answers by vLLM, with a stand-in for it: the artifact is the one that transformers gives, and its processes end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_registry.core.errors import Preempted
from data_registry.prepared import load_prepared
from data_registry.testbed import MODEL_DIR
from data_registry.testbed.pools import rows as pool_rows
from pipelines.commands import sample
from pipelines.configs.sample import SampleConfig
from pipelines.core.config import resolve
from pipelines.evaluation.answering import asking
from pipelines.samples.storage import LOG_PROBS_FILE
from tests.preparing.small_sources import prepare
from tests.sampling import vllm_stand_in


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in pool_rows("general", num_samples=5)))
    return prepare(source, folder / "prepared").path


def make(data: Path, out: Path, **options: Any) -> Path:
    given = {"model": str(MODEL_DIR), "data": str(data), "out": str(out), "max_new_tokens": 12, "batch_size": 2}
    return sample.run(resolve(SampleConfig, flags={**given, **options})).path


def test_answers_and_what_the_model_expected_are_those_of_transformers(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make(data, tmp_path / "plain", log_probs=6)
    engines = vllm_stand_in.install(monkeypatch)
    found = make(data, tmp_path / "vllm", log_probs=6, backend="vllm")
    assert load_prepared(found)[0].to_list() == load_prepared(plain)[0].to_list()
    assert (found / LOG_PROBS_FILE).read_bytes() == (plain / LOG_PROBS_FILE).read_bytes()
    assert (engines.opened, engines.closed) == (1, 1)
    assert {(request.temperature, request.seed, request.detokenize) for request in engines.requests} == {
        (0.0, None, False)
    }


def test_every_answer_has_a_stream_of_its_own_and_a_run_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {
        "backend": "vllm",
        "answers": 4,
        "temperature": 2.0,
        "top_p": 0.9,
        "num_samples": 3,
        "grade": "exact",
    }
    engines = vllm_stand_in.install(monkeypatch)
    whole = load_prepared(make(data, tmp_path / "whole", **options))[0].to_list()
    assert len({request.seed for request in engines.requests}) == len(engines.requests) == 12
    assert {(request.temperature, request.top_p) for request in engines.requests} == {(2.0, 0.9)}
    assert {row["finish"] for row in whole} <= {"end", "length"}
    assert all(row["num_tokens"] == 12 for row in whole if row["finish"] == "length")

    answers_to, num_requests = asking.answers_to, len(engines.requests)

    def stop_after_two(*arguments: Any) -> Iterator[Any]:
        for number, answers in enumerate(answers_to(*arguments)):
            if number == 2:
                raise Preempted("stopped")
            yield answers

    monkeypatch.setattr(asking, "answers_to", stop_after_two)
    with pytest.raises(Preempted):
        make(data, tmp_path / "stopped", **options)
    assert engines.closed == 2
    asked_again = len(engines.requests)
    monkeypatch.setattr(asking, "answers_to", answers_to)
    assert load_prepared(make(data, tmp_path / "stopped", **options))[0].to_list() == whole
    assert len(engines.requests) - asked_again == num_requests - 2 * 2  # two batches of two were kept
    assert engines.closed == engines.opened == 3
