"""The suite capability: the numbers are those of calling lm-eval directly, and its own files give the same report."""

import json
from pathlib import Path

import lm_eval.evaluator
import pytest
import torch
import yaml
from lm_eval import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from data_registry.core.errors import ConfigError, InputError
from data_registry.testbed import MODEL_DIR
from data_registry.testbed import suite as testbed_items
from pipelines.commands import evaluate, report
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.configs.report import ReportConfig
from pipelines.evaluation.contract.answer import read_answers
from pipelines.evaluation.lm_eval.results import convert

TASKS = ("tiny_choice", "tiny_words")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    # It asks git, pip and the compiler for versions: seconds, and nothing that is compared here.
    monkeypatch.setattr(lm_eval.evaluator, "add_env_info", lambda storage: None)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> Path:
    """Two tasks and a group over local questions, which need no network."""
    root = tmp_path_factory.mktemp("tasks")
    items = [item for item in testbed_items.items() if item.group == "fact"][:24]
    answers = sorted({item.answer for item in items})
    rows = []
    for number, item in enumerate(items):
        choices = [answer for answer in answers if answer != item.answer][:3]
        choices.insert(number % 4, item.answer)
        rows.append({"question": item.messages[-1]["content"], "choices": choices, "label": number % 4})
    for name, part in (("test", rows[:18]), ("train", rows[18:])):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    common = {
        "dataset_path": "json", "test_split": "test", "fewshot_split": "train", "doc_to_text": "{{question}}",
        "dataset_kwargs": {"data_files": {name: str(root / f"{name}.jsonl") for name in ("test", "train")}},
        "metadata": {"version": 3.0},
    }  # fmt: skip

    def means(*names):
        return [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in names]

    choice = {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "doc_to_target": "label"}
    words = {"output_type": "generate_until", "doc_to_target": "{{choices[label]}}"}
    words["generation_kwargs"] = {"until": ["<end>"], "max_gen_toks": 8, "do_sample": False}
    grouped = {"aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}]}
    for name, content in {
        "tiny_choice": {**common, **choice, "metric_list": means("acc", "acc_norm")},
        "tiny_words": {**common, **words, "metric_list": means("exact_match")},
        "tiny_other": {**common, **choice, "metric_list": means("acc"), "doc_to_text": "say {{question}}"},
    }.items():
        (root / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **content}))
    (root / "group.yaml").write_text(
        yaml.safe_dump({"group": "tiny_all", "task": ["tiny_choice", "tiny_other"], **grouped})
    )
    return root


@pytest.fixture(scope="module")
def qwen(tmp_path_factory) -> Path:
    """A tiny Qwen2 that knows nothing, with the testbed's words."""
    folder = tmp_path_factory.mktemp("models") / "qwen"
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def config(out: Path, tasks: Path, **options) -> EvaluateConfig:
    given = {"model": str(MODEL_DIR), "suite": ["capability"], "task": list(TASKS), "task_dir": tasks, "out": out}
    return EvaluateConfig(**(given | options))


def directly(model: Path, tasks: Path, names=TASKS, **options):
    """What lm-eval says when it loads the model itself."""
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    arguments = {"pretrained": str(model), "dtype": "float32"}
    return simple_evaluate(
        "hf", arguments, tasks=list(names), device="cpu", task_manager=manager, bootstrap_iters=0, **options
    )


@pytest.mark.parametrize(
    ("kind", "ours", "theirs"),
    [
        ("testbed", {"batch_size": 16}, {"batch_size": 16}),
        (
            "testbed",
            {"shots": 2, "chat_prompts": True, "num_samples": 10, "batch_size": 4},
            {"num_fewshot": 2, "apply_chat_template": True, "fewshot_as_multiturn": True, "limit": 10, "batch_size": 4},
        ),
        ("qwen", {"shots": 1, "batch_size": 8}, {"num_fewshot": 1, "batch_size": 8}),
    ],
    ids=["testbed", "testbed-chat-shots", "qwen"],
)
def test_figures_and_items_are_those_of_lm_eval(kind, ours, theirs, tasks, qwen, tmp_path):
    model = MODEL_DIR if kind == "testbed" else qwen
    made = evaluate.run(config(tmp_path / "r", tasks, model=str(model), **ours))
    found = directly(model, tasks, **theirs)
    for suite in made.results.suites:
        task = suite.suite.removeprefix("capability/")
        for metric in suite.metrics:
            assert metric.value == found["results"][task][f"{metric.name},none"]
            assert metric.num_items == found["n-samples"][task]["effective"]
        assert suite.settings.shots == found["n-shot"][task] == ours.get("shots", 0)
        assert suite.settings.version == "3.0"
        assert (suite.settings.template_hash == "no chat template") == (not ours.get("chat_prompts"))
    assert [metric.name for metric in made.results.suites[0].metrics if metric.headline] == ["acc"]
    items = read_answers(made.path)
    for task, metric in (("tiny_choice", "acc"), ("tiny_choice", "acc_norm"), ("tiny_words", "exact_match")):
        scores = [item.score for item in items if item.suite == f"capability/{task}" and item.group == metric]
        assert scores == [sample[metric] for sample in found["samples"][task]]
    first = found["samples"]["tiny_words"][0]
    stored = next(item for item in items if item.id == "tiny_words/0/exact_match")
    assert (stored.prompt, stored.expected) == (first["arguments"][0][0], first["target"])
    assert stored.answer == first["filtered_resps"][0]


def test_the_answer_to_a_choice_is_the_likeliest(tasks, tmp_path):
    items = read_answers(evaluate.run(config(tmp_path / "r", tasks, task=["tiny_choice"])).path)
    right = [item for item in items if item.group == "acc" and item.score == 1]
    assert right
    assert all(item.answer == item.expected for item in right)
    assert all(item.answer != item.expected for item in items if item.group == "acc" and item.score == 0)


def test_a_group_is_one_suite_with_its_tasks_as_details(tasks, tmp_path):
    made = evaluate.run(config(tmp_path / "r", tasks, task=["tiny_all"], shots=0))
    found = directly(MODEL_DIR, tasks, ["tiny_all"], num_fewshot=0)
    (suite,) = made.results.suites
    assert suite.suite == "capability/tiny_all"
    assert {metric.name: metric.value for metric in suite.metrics} == {
        "acc": found["groups"]["tiny_all"]["acc,none"],
        "tiny_choice acc": found["results"]["tiny_choice"]["acc,none"],
        "tiny_other acc": found["results"]["tiny_other"]["acc,none"],
    }
    assert [metric.headline for metric in suite.metrics] == [True, False, False]
    assert suite.metrics[0].num_items == 36 == len(read_answers(made.path))


def test_its_own_files_say_the_same_in_a_report(tasks, qwen, tmp_path):
    ours = evaluate.run(config(tmp_path / "r" / "ours", tasks, name="start")).results
    for model in (MODEL_DIR, qwen):
        tracker = EvaluationTracker(output_path=str(tmp_path / "r" / "lm"))
        found = directly(model, tasks, evaluation_tracker=tracker)
        samples = found.pop("samples")
        tracker.save_results_aggregated(results=found, samples=samples)
        for task, rows in samples.items():
            tracker.save_results_samples(task_name=task, samples=rows)
    made = report.run(
        ReportConfig(results=[str(tmp_path / "r")], start="start", out=tmp_path / "out", details=True, bootstrap=200)
    ).report
    assert made.runs[0].name == "start"
    assert {run.name for run in made.runs[1:]} == {qwen.name, MODEL_DIR.name}
    assert made.unlikenesses == ()
    start, same, other = (
        next(run for run in made.runs if run.name == name) for name in ("start", MODEL_DIR.name, qwen.name)
    )
    assert same.results.suites == ours.suites
    first, last = (run.results.metric("capability/tiny_choice", "acc").value for run in (start, other))
    gain = next(gain for gain in made.gains if gain.run == qwen.name)
    assert gain.changes[0].relative == pytest.approx((last - first) / first)
    tests = [c for c in made.comparisons if c.run == MODEL_DIR.name]
    assert all((c.flips.gained, c.flips.lost, c.difference.num_items) == (0, 0, 18) for c in tests)


# --- Result files without samples, by hand -----------------------------------------------------------------------


def by_hand(**changes):
    return {
        "results": {"t": {"acc,none": 0.6, "acc_stderr,none": 0.1, "ppl,none": 12.0, "ppl_stderr,none": "N/A"}},
        "versions": {"t": 1}, "n-shot": {"t": 5}, "n-samples": {"t": {"original": 90, "effective": 25}},
        "higher_is_better": {"t": {"acc": True, "ppl": False}}, "configs": {"t": {"output_type": "multiple_choice"}},
        **changes,
    }  # fmt: skip


def test_without_samples_the_standard_error_gives_the_interval():
    (made,) = convert(by_hand(), None, resamples=100, seed=0)
    acc, ppl = made.results.metrics
    assert (acc.value, acc.num_items, acc.unit, acc.interval) == (0.6, 25, "share", "normal")
    assert (acc.low, acc.high) == pytest.approx((0.6 - 0.196, 0.6 + 0.196), abs=1e-4)
    assert (ppl.value, ppl.unit, ppl.low, ppl.higher_is_better) == (12.0, "score", None, False)
    assert made.items == []
    assert made.results.settings.prompt_hash == "not stored (25 items)"
    assert made.results.settings.shots == 5


def test_filters_are_figures_of_their_own_with_their_own_items():
    def sample(number: int, filter_name: str, score: float):
        hashes = dict.fromkeys(("doc_hash", "prompt_hash", "target_hash"), f"{number}")
        return {
            "doc_id": number, "filter": filter_name, "exact_match": score, "target": "4", "filtered_resps": ["4"],
            "arguments": {"gen_args_0": {"arg_0": "2 + 2?", "arg_1": {}}}, **hashes,
        }  # fmt: skip

    strict, flexible = [1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]
    rows = [
        sample(n, name, s)
        for name, scores in (("strict", strict), ("flexible", flexible))
        for n, s in enumerate(scores)
    ]
    found = by_hand(
        results={"t": {"exact_match,strict": 0.25, "exact_match,flexible": 0.75}},
        higher_is_better={"t": {"exact_match": True}}, configs={"t": {"output_type": "generate_until"}},
    )  # fmt: skip
    (made,) = convert(found, {"t": rows}, resamples=100, seed=0)
    figures = [(m.name, m.value, m.num_items, m.headline, m.interval) for m in made.results.metrics]
    assert figures == [
        ("exact_match,strict", 0.25, 4, True, "wilson"), ("exact_match,flexible", 0.75, 4, False, "wilson"),
    ]  # fmt: skip
    assert [item.score for item in made.items if item.group == "exact_match,strict"] == strict
    assert [item.score for item in made.items if item.group == "exact_match,flexible"] == flexible
    assert (made.items[0].prompt, made.items[0].answer, made.items[0].expected) == ("2 + 2?", "4", "4")


# --- What is refused ---------------------------------------------------------------------------------------------


def test_tasks_that_cannot_be_run_are_named(tasks, tmp_path):
    def refusal(kind, **options):
        with pytest.raises(kind) as caught:
            evaluate.plan(config(tmp_path / "r", tasks, **options))
        return str(caught.value)

    assert "needs tasks of lm-eval" in refusal(ConfigError, task=[])
    assert "'tiny_words' is given twice" in refusal(ConfigError, task=["tiny_words", "tiny_words"])
    assert "does not exist" in refusal(InputError, task_dir=tmp_path / "none")
    assert "lm-eval has no task 'tiny_wordz'" in refusal(ConfigError, task=["tiny_wordz"])
    flags = refusal(ValueError, suite=["testbed"], shots=0)
    assert "--task needs --suite capability" in flags
    assert "--shots needs --suite capability" in flags
    broken = tmp_path / "broken"
    broken.mkdir()
    task = yaml.safe_load((tasks / "tiny_choice.yaml").read_text())
    task["dataset_kwargs"] = {"data_files": {"test": str(tmp_path / "no.jsonl")}}
    (broken / "t.yaml").write_text(yaml.safe_dump(task))
    assert "the tasks tiny_choice cannot be loaded" in refusal(InputError, task=["tiny_choice"], task_dir=broken)
    # Six rows are for examples; where they are the items themselves, an item is no example for itself.
    assert evaluate.plan(config(tmp_path / "r", tasks, shots=6))
    few = "'tiny_choice' has 6 documents for worked examples, and 7 are asked for"
    assert few in refusal(ConfigError, task=["tiny_choice"], shots=7)
    own = tmp_path / "own"
    own.mkdir()
    task = yaml.safe_load((tasks / "tiny_words.yaml").read_text()) | {"fewshot_split": "test"}
    (own / "t.yaml").write_text(yaml.safe_dump(task))
    assert evaluate.plan(config(tmp_path / "r", own, task=["tiny_words"], shots=17))
    assert "has 17 documents" in refusal(ConfigError, task=["tiny_words"], task_dir=own, shots=18)


def test_what_fails_in_lm_eval_is_an_error_of_the_tasks(tasks, tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise KeyError("a column that is not there")

    monkeypatch.setattr("lm_eval.evaluate", fails)
    with pytest.raises(InputError, match="lm-eval fails on the tasks tiny_words: KeyError: 'a column that"):
        evaluate.run(config(tmp_path / "r", tasks, task=["tiny_words"]))
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read"),
        ('{"a": 1}', "is not a result file of lm-eval"),
        ('{"results": {"t": {"acc,none": 0.5}}, "versions": {}, "n-samples": 3}', "cannot be read as a result"),
        ('{"results": {}, "versions": {}}', "cannot be read as a result"),
        ('{"results": {"t": {"acc,none": 0.5}}, "versions": {}, "config": ["m"]}', "cannot be read as a result"),
        ('{"results": {"../t/x": {"acc,none": 0.5}}, "versions": {}}', "cannot be read as a result"),
        (f'{{"results": {{"{"t" * 300}": {{}}}}, "versions": {{}}}}', "cannot be read as a result"),
        ('{"results": {"t": 3}, "versions": {}}', "cannot be read as a result"),
        (
            '{"results": {"a": {"acc,none": 1}}, "versions": {}, "group_subtasks": {"a": ["b"], "b": ["a"]},'
            ' "groups": {"a": {}}}',
            "cannot be read as a result",
        ),
        (f'{{"results": {{"t": {{"acc,none": 1{"0" * 400}}}}}, "versions": {{}}}}', "cannot be read as a result"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_a_damaged_file_of_lm_eval_is_refused(content, says, tmp_path):
    (tmp_path / "results_x.json").write_text(content)
    with pytest.raises(InputError, match=says):
        report.run(ReportConfig(results=[str(tmp_path)], out=tmp_path / "out"))
