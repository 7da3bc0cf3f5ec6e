"""Preference pairs out of a model's graded answers: what comes out, what is said, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import pytest

from data_registry.core.errors import ConfigError, InputError
from data_registry.prepared import SAMPLES, load_prepared
from ogpsa_cli.commands.prepare_data import _count_lines as count_lines
from pipelines.commands import prepare_data
from pipelines.configs.sample import SampleConfig
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.config import resolve
from pipelines.core.making import Wanted, make
from pipelines.samples.storage import Sample, write_samples
from tests.preparing.small_sources import config, prepare, write

R, W, U = "right", "wrong", "unsure"


def samples(folder: Path, answers: Sequence[tuple[int, str, str | None] | tuple[int, str, str | None, str]]) -> Path:
    """A samples artifact of these answers: number of the prompt, answer, grade, and how it ended."""
    rows = [
        Sample(
            [{"role": "user", "content": f"question {prompt}"}, {"role": "assistant", "content": text}],
            prompt, number, *(ending or ["end"]), 3, text, grade, None if grade is None else f"gold {prompt}",
        )
        for number, (prompt, text, grade, *ending) in enumerate(answers)
    ]  # fmt: skip
    return artifact(folder, lambda path: write_samples(path, rows))


def artifact(folder: Path, write_rows: Callable[[Path], object]) -> Path:
    """A finished artifact of samples, with what this writes in it."""
    options = resolve(SampleConfig, flags={"model": "m", "data": "d", "out": str(folder)})

    def fill(writer: ArtifactWriter) -> None:
        write_rows(writer.path)
        writer.summary = {"task": "sft"}

    return make(Wanted(folder, SAMPLES, options, []), fill).path


MIXED = [
    (0, "a", R), (0, "b", W), (0, "a", R), (0, "c", W), (0, "d", R, "length"),
    (1, "a", R), (1, "b", R),
    (2, "a", W), (2, "b", W, "length"),
    (3, "a", U),
]  # fmt: skip


@pytest.fixture
def mixed(tmp_path) -> Path:
    return samples(tmp_path / "samples", MIXED)


def texts(path: Path) -> list[tuple[str, str, str, str | None]]:
    return [
        (row["prompt"][0]["content"], row["chosen"][0]["content"], row["rejected"][0]["content"], row["reference"])
        for row in load_prepared(path, task="preference")[0]
    ]


def test_pairs_have_a_right_and_a_wrong_answer_and_the_reference(mixed, tmp_path):
    made = prepare(mixed, tmp_path / "out", format="samples", seed=42)
    assert sorted(texts(made.path)) == [("question 0", "a", "b", "gold 0"), ("question 0", "a", "c", "gold 0")]
    assert made.manifest.summary["questions"] == {
        "questions": 4, "with_pairs": 1, "only_right": 1, "only_wrong": 1, "neither": 1, "with_reference": 0,
        "duplicates": 1, "cut_off": 2, "right_cut_off": 1, "unsure": 1,
    }  # fmt: skip
    assert [record.role for record in made.manifest.inputs] == ["source"]


def test_gold_answer_is_chosen_where_only_wrong_ones_are(mixed, tmp_path):
    made = prepare(mixed, tmp_path / "out", format="samples", missing="gold")
    assert sorted(texts(made.path))[2:] == [
        ("question 2", "gold 2", "a", "gold 2"),
        ("question 2", "gold 2", "b", "gold 2"),
    ]
    assert made.manifest.summary["questions"]["with_reference"] == 1


def test_seed_and_number_of_pairs_decide_which_are_drawn(tmp_path):
    many = [(0, f"{grade} {number}", grade) for grade in (R, W) for number in range(6)]
    source = samples(tmp_path / "samples", many)
    drawn = [
        texts(prepare(source, tmp_path / str(index), format="samples", pairs_per_prompt=4, seed=seed).path)
        for index, seed in enumerate((1, 1, 2))
    ]
    assert [len(set(pairs)) for pairs in drawn] == [4, 4, 4]
    assert drawn[0] == drawn[1] != drawn[2]
    everything = prepare(source, tmp_path / "all", format="samples", pairs_per_prompt=99)
    assert len(set(texts(everything.path))) == 36


def test_what_became_of_questions_is_said(mixed, tmp_path):
    made = prepare(mixed, tmp_path / "out", format="samples")
    said = " ".join(" ".join(count_lines(made.counts, made.manifest)).split())
    for line in (
        "4 questions: 1 have right and wrong answers, and gave pairs 1 have only right answers, and gave none 1 have "
        "only wrong answers: left out (--missing gold) 1 have no answer that could be used",
        "1 answers left out: the same question had the same answer before",
        "2 answers cut off at the length limit: 1 right ones left out",
        "1 answers left out: the judge could not tell",
    ):
        assert line in said
    plan = dict(prepare_data.plan(config(mixed, tmp_path / "out", format="samples")))
    assert plan["questions"].startswith("1 with right and wrong answers, 1 with only right ones, 1 with only wrong")


def test_other_options_of_selection_work_on_the_pairs(mixed, tmp_path):
    made = prepare(mixed, tmp_path / "out", format="samples", missing="gold", num_samples=2, seed=1)
    assert (made.counts.read, made.counts.kept, made.counts.not_drawn) == (4, 2, 2)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([(0, "a", R), (1, "b", W)], "of 2, 1 have only right answers, 1 only wrong ones and 0 neither"),
        ([(0, "a", R)], "of 1, 1 have only right answers, 0 only wrong ones and 0 neither"),
        ([(0, "a", R, "length"), (0, "b", W)], "0 only right answers, 1 only wrong ones .* 1 right answers were cut"),
        ([(0, "a", U)], "0 only wrong ones and 1 neither"),
        ([(0, "a", None)], "are not graded"),
        ([(0, "a", "good")], "the grade of an answer is 'good', none of right, wrong, unsure"),
    ],
)
def test_samples_without_pairs_are_refused_by_name(answers, message, tmp_path):
    source = samples(tmp_path / "samples", answers)
    with pytest.raises(InputError, match=message.replace("0 only right", "0 have only right")):
        prepare(source, tmp_path / "out", format="samples")
    assert not (tmp_path / "out").exists()


def test_only_wrong_answers_give_pairs_with_the_reference_alone(tmp_path):
    source = samples(tmp_path / "samples", [(0, "a", W)])
    assert texts(prepare(source, tmp_path / "out", format="samples", missing="gold").path) == [
        ("question 0", "gold 0", "a", "gold 0")
    ]


def test_what_are_no_samples_is_refused_by_name(mixed, tmp_path):
    source = write(tmp_path / "rows.jsonl", [{"question": "q", "answer": "a"}])
    prepared = prepare(source, tmp_path / "prepared").path
    shutil.copytree(mixed, tmp_path / "bare")
    (tmp_path / "bare" / "manifest.json").unlink()
    for given, message in (
        (source, "is no folder of samples"),
        (tmp_path / "bare", "is no folder of samples"),
        (tmp_path / "nothing", "does not exist"),
        (prepared, "is a data set, and no samples"),
    ):
        with pytest.raises(InputError, match=message):
            prepare(given, tmp_path / "out", format="samples")
    for options, message in (
        ({"task": "sft"}, "format 'samples' has rows for preference, not for sft"),
        ({"source_split": "train"}, "not for samples"),
        ({"columns": {"answer": "chosen"}}, "no column 'answer'"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare(mixed, tmp_path / "out", format="samples", **options)
    with pytest.raises(ConfigError, match="no data set by name"):
        prepare("gsm8k", tmp_path / "out", format="samples")
    with pytest.raises(ConfigError, match="--missing needs --format samples"):
        prepare(source, tmp_path / "out", missing="gold")
    with pytest.raises(ConfigError, match="--seed needs --num-samples"):
        prepare(source, tmp_path / "out", seed=42)
    assert not (tmp_path / "out").exists()


def test_right_answers_alone_are_rows_for_sft(mixed, tmp_path):
    made = prepare(mixed, tmp_path / "out", where={"grade": "right"})
    rows = [row["messages"][-1]["content"] for row in load_prepared(made.path, task="sft")[0]]
    assert rows == ["a", "d", "a", "b"]
    assert made.counts.filtered == 5


def test_samples_without_a_column_of_grades_are_not_graded(mixed, tmp_path):
    rows = datasets.load_from_disk(str(mixed)).remove_columns(["extracted", "grade", "reference"])
    old = artifact(tmp_path / "old", lambda path: rows.save_to_disk(str(path)))
    assert json.loads((old / "manifest.json").read_text())["kind"] == SAMPLES
    with pytest.raises(InputError, match="are not graded"):
        prepare(old, tmp_path / "out", format="samples")
