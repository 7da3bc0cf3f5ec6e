"""The recipe evaluate and its suites: figures that can be traced to items, and everything that must be refused."""

import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.torch import load_file, save_file

from data_registry.core.errors import ArtifactError, ConfigError, InputError, NumericsError
from data_registry.testbed import MODEL_DIR
from data_registry.testbed import suite as testbed_items
from pipelines.commands import evaluate
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.core.artifact import write_artifact
from pipelines.core.config import CommandConfig
from pipelines.evaluation import measuring
from pipelines.evaluation.contract.results import comparable, read_results
from pipelines.evaluation.suites.testbed import ItemScore, answer
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from pipelines.reporting.figures import role_of
from pipelines.tokens.tokenizer import load_tokenizer
from tests.evaluation.testbed_scores import aggregate


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(out: Path, **options) -> EvaluateConfig:
    return EvaluateConfig(**{"model": str(MODEL_DIR), "suite": ["testbed"], "out": out, "num_samples": 6} | options)


def conversations(count: int, word: str = "fact") -> list[dict]:
    item = next(item for item in testbed_items.items() if item.group == word)
    return [
        {"messages": [*item.messages, {"role": "assistant", "content": item.answer if row % 2 else "sorry ."}]}
        for row in range(count)
    ]


def prepared(path: Path, rows: list[dict], task: str = "sft") -> Path:
    with write_artifact(path, "dataset", CommandConfig(), []) as writer:
        datasets.Dataset.from_list(rows).save_to_disk(str(writer.path))
        writer.summary["task"] = task
    return path


@pytest.fixture
def data(tmp_path) -> Path:
    return prepared(tmp_path / "facts", conversations(5))


def answers(path: Path) -> list[dict]:
    return parquet.read_table(path / "answers.parquet").to_pylist()


def copy_model(target: Path) -> Path:
    shutil.copytree(MODEL_DIR, target)
    return target


# --- The suite testbed -------------------------------------------------------------------------------------------


def test_figures_are_the_means_of_the_stored_scores(tmp_path):
    result = evaluate.run(config(tmp_path / "results"))
    rows = answers(result.path)
    assert len(rows) == 6 * 12
    expected = aggregate([ItemScore(row["id"], row["group"], int(row["score"])) for row in rows])
    found = {metric.name: metric.value for metric in result.results.suites[0].metrics}
    assert {name: value for name, value in found.items() if "/" not in name} == pytest.approx(expected)
    for metric in result.results.suites[0].metrics:
        if metric.category is not None:
            scores = [r["score"] for r in rows if r["group"] in metric.groups and r["category"] == metric.category]
            assert (metric.num_items, metric.value) == (len(scores), sum(scores) / len(scores))
            assert metric.interval == "wilson"
    details = [name for name in found if "/" in name]
    assert {name.partition("/")[0] for name in details} == {"safe", "over_refusal"}
    for row in rows:
        assert testbed_items.is_correct(row["group"], row["expected"], row["answer"]) == bool(row["score"])
        assert row["prompt"].startswith("<user> ")
        assert row["prompt"].endswith("<bot>")


def test_validation_split_is_a_suite_of_its_own_with_other_items(tmp_path):
    result = evaluate.run(config(tmp_path / "results", suite=["testbed-validation"], num_samples=2))
    (suite,) = result.results.suites
    assert (suite.suite, suite.settings.split) == ("testbed-validation", "validation")
    assert {row["id"].partition("/")[0] for row in answers(result.path)} == {"validation"}
    assert [role_of(suite.suite, metric) for metric in suite.metrics[:3]] == ["safety", "over-refusal", "capability"]
    roles = {metric.name.partition("/")[0]: role_of(suite.suite, metric) for metric in suite.metrics if metric.category}
    assert roles == {"safe": "safety", "over_refusal": "over-refusal"}


def test_items_keep_their_order_and_answers_whatever_the_batches(tmp_path):
    one = evaluate.run(config(tmp_path / "one", batch_size=1, num_samples=2))
    many = evaluate.run(config(tmp_path / "many", batch_size=7, num_samples=2))
    assert answers(one.path) == answers(many.path)
    ids = [row["id"] for row in answers(one.path)]
    wanted = [item.id for item in testbed_items.items()]
    assert ids == [name for name in wanted if name in set(ids)]
    assert one.results == many.results
    source = resolve_model(str(MODEL_DIR))
    items = [item for item in testbed_items.items() if item.id in ids]
    direct = answer(load_model(source, precision="fp32"), load_tokenizer(source.path_or_id), items)
    assert [row["answer"] for row in answers(one.path)] == direct


def test_the_general_figure_weighs_skills_equally_and_has_an_interval(tmp_path):
    suite = evaluate.run(config(tmp_path / "results")).results.suites[0]
    general = next(metric for metric in suite.metrics if metric.name == "general")
    details = [metric for metric in suite.metrics if not metric.headline and metric.category is None]
    assert len(details) == 10
    assert general.value == pytest.approx(np.mean([metric.value for metric in details]))
    assert general.num_items == sum(metric.num_items for metric in details) == 60
    assert general.low <= general.value <= general.high
    assert [m.higher_is_better for m in suite.metrics if m.headline] == [True, False, True]


def test_results_are_stored_with_what_a_comparison_needs(tmp_path):
    result = evaluate.run(config(tmp_path / "results", name="my run"))
    stored = read_results(tmp_path / "results")
    assert stored == result.results
    assert stored.run == "my run"
    assert stored.model_fingerprint == resolve_model(str(MODEL_DIR)).fingerprint()
    assert set(result.manifest.files) == {"results.json", "answers.parquet"}
    assert result.manifest.summary["testbed"].keys() == {"safe", "over_refusal", "general"}


def test_another_template_or_fewer_items_are_not_comparable(tmp_path):
    template = tmp_path / "template.jinja"
    template.write_text((MODEL_DIR / "chat_template.jinja").read_text() + " ")
    plain = evaluate.run(config(tmp_path / "plain")).results
    other = evaluate.run(config(tmp_path / "other", chat_template=template)).results
    fewer = evaluate.run(config(tmp_path / "fewer", num_samples=3)).results
    assert [reason.split(":")[1].split(" is ")[0] for reason in comparable(plain, other)] == [" template hash"]
    assert any("prompt hash" in reason for reason in comparable(plain, fewer))


# --- The suite reference-loss ------------------------------------------------------------------------------------


def test_the_loss_is_that_of_the_model_on_the_answers(tmp_path, data):
    result = evaluate.run(config(tmp_path / "r", suite=["reference-loss"], data=[data], num_samples=None))
    model = load_model(resolve_model(str(MODEL_DIR)), precision="fp32").double()
    vocabulary = json.loads((MODEL_DIR / "tokenizer.json").read_text())["model"]["vocab"]
    total = count = 0
    for row in conversations(5):
        question, reply = (message["content"] for message in row["messages"])
        words = f"<user> {question} <bot> {reply} <end>".split()
        ids = torch.tensor([[vocabulary[word] for word in words]])
        with torch.no_grad():
            logs = torch.log_softmax(model(ids).logits[0], -1)
        for position in range(len(words) - len(reply.split()) - 1, len(words)):
            total -= logs[position - 1, ids[0, position]].item()
            count += 1
    metric = result.results.metric("reference-loss/facts", "loss")
    assert metric.value == pytest.approx(total / count, rel=1e-5)
    assert metric.low < metric.value < metric.high
    assert (metric.num_items, metric.unit, metric.higher_is_better) == (5, "nats", False)
    assert sum(row["weight"] for row in answers(result.path)) == count
    assert sum(row["weight"] * row["score"] for row in answers(result.path)) == pytest.approx(total, rel=1e-5)


def test_a_draw_is_seeded_and_keeps_the_rows_numbers(tmp_path, data):
    def rows(name: str, seed: int) -> list[str]:
        drawn = config(tmp_path / name, suite=["reference-loss"], data=[data], num_samples=2, seed=seed)
        return [row["id"] for row in answers(evaluate.run(drawn).path)]

    assert rows("a", 0) == rows("b", 0)
    assert len({tuple(rows(f"s{seed}", seed)) for seed in range(4)}) > 1


def test_cutting_is_noted_only_where_it_happened(tmp_path, data):
    whole = evaluate.run(config(tmp_path / "whole", suite=["reference-loss"], data=[data], num_samples=None)).results
    length = max(len(row["prompt"].split()) + len(row["answer"].split()) + 3 for row in answers(tmp_path / "whole"))
    cut = config(tmp_path / "cut", suite=["reference-loss"], data=[data], num_samples=None, max_length=length - 1)
    assert whole.suites[0].settings.max_length is None
    assert evaluate.run(cut).results.suites[0].settings.max_length == length - 1


def test_several_suites_and_data_sets_stand_in_one_result(tmp_path, data):
    more = prepared(tmp_path / "more", conversations(3, "kind"))
    chosen = config(tmp_path / "r", suite=["testbed", "reference-loss"], data=[data, more])
    result = evaluate.run(chosen)
    assert [suite.suite for suite in result.results.suites] == [
        "testbed", "reference-loss/facts", "reference-loss/more",
    ]  # fmt: skip
    assert [record.role for record in result.manifest.inputs] == ["model", "data", "data"]


# --- Doing it again ----------------------------------------------------------------------------------------------


def test_the_same_evaluation_is_up_to_date(tmp_path, monkeypatch):
    first = evaluate.run(config(tmp_path / "r"))
    monkeypatch.setattr(measuring, "open_model", lambda *_, **__: pytest.fail("it was up to date"))
    again = evaluate.run(config(tmp_path / "r", batch_size=3))  # how, not what
    assert again.up_to_date
    assert not first.up_to_date
    assert again.results == first.results


def test_other_settings_and_another_model_do_not_overwrite(tmp_path):
    evaluate.run(config(tmp_path / "r"))
    with pytest.raises(ArtifactError, match="made with other settings: num_samples"):
        evaluate.run(config(tmp_path / "r", num_samples=2))
    (copy_model(tmp_path / "model") / "generation_config.json").write_text('{"eos_token_id": 4}')
    with pytest.raises(ArtifactError, match="made with other settings: model"):
        evaluate.run(config(tmp_path / "r", model=str(tmp_path / "model")))
    assert not evaluate.run(config(tmp_path / "r", num_samples=2, overwrite=True)).up_to_date


def test_a_dry_run_reads_no_weights_and_writes_nothing(tmp_path, data, monkeypatch):
    monkeypatch.setattr(measuring, "open_model", lambda *_, **__: pytest.fail("a plan needs no weights"))
    lines = dict(evaluate.plan(config(tmp_path / "r", suite=["testbed", "reference-loss"], data=[data])))
    assert lines["testbed"].startswith("72 items")
    assert lines["reference-loss/facts"] == "5 samples"
    assert not (tmp_path / "r").exists()


# --- What is refused ---------------------------------------------------------------------------------------------


def refusal(expected: type[Exception], chosen: EvaluateConfig) -> str:
    with pytest.raises(expected) as caught:
        evaluate.run(chosen)
    left = [path.name for path in chosen.out.parent.iterdir() if "partial" in path.name]
    assert not left
    assert not (chosen.out / "manifest.json").exists()
    return str(caught.value)


def test_problems_with_suites_are_reported_together(tmp_path):
    text = refusal(ConfigError, config(tmp_path / "r", suite=["tesbed", "reference-loss", "reference-loss"]))
    assert "unknown suite 'tesbed' (did you mean 'testbed'?)" in text
    assert "'reference-loss' is given twice" in text
    assert "needs a prepared data set" in text


def test_data_without_a_suite_that_takes_it_is_not_ignored(tmp_path, data):
    assert "--data is for the suites reference-loss" in refusal(ConfigError, config(tmp_path / "r", data=[data]))


def test_two_data_sets_of_one_name_cannot_be_told_apart(tmp_path, data):
    (tmp_path / "b").mkdir()
    other = prepared(tmp_path / "b" / "facts", conversations(3))
    text = refusal(ConfigError, config(tmp_path / "r", suite=["reference-loss"], data=[data, other]))
    assert "two data sets of --data are called 'facts'" in text


def test_data_that_was_not_prepared_or_is_for_another_task(tmp_path):
    (tmp_path / "raw").mkdir()
    assert "is not a prepared data set" in refusal(
        InputError, config(tmp_path / "r", suite=["reference-loss"], data=[tmp_path / "raw"])
    )
    pair = {"prompt": [], "chosen": [], "rejected": []}
    pairs = prepared(tmp_path / "pairs", [pair], "preference")
    assert "where sft is needed" in refusal(InputError, config(tmp_path / "r", suite=["reference-loss"], data=[pairs]))


def test_a_diverged_model_has_no_loss(tmp_path, data):
    model = copy_model(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    text = refusal(NumericsError, config(tmp_path / "r", model=str(model), suite=["reference-loss"], data=[data]))
    assert "the loss of the model is nan" in text


def test_a_model_without_tokenizer_or_template(tmp_path):
    model = copy_model(tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    assert "no chat template" in refusal(InputError, config(tmp_path / "r", model=str(model)))
    for file in model.glob("tokenizer*"):
        file.unlink()
    assert "holds no tokenizer" in refusal(InputError, config(tmp_path / "r", model=str(model)))


def test_a_tokenizer_of_another_model(tmp_path):
    model = copy_model(tmp_path / "model")
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {word: number + 300 * (number > 5) for word, number in vocabulary.items()}
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    text = refusal(InputError, config(tmp_path / "r", model=str(model), num_samples=None))
    assert "the model has embeddings for" in text


def test_a_template_that_is_not_there(tmp_path):
    text = refusal(InputError, config(tmp_path / "r", chat_template=tmp_path / "none.jinja"))
    assert "chat template cannot be read" in text


def test_a_place_that_holds_something_else_is_not_touched(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(ArtifactError, match="is not an artifact of ogpsa; it will not be touched"):
        evaluate.run(config(tmp_path / "mine", overwrite=True))
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"
