"""Several data sets trained on together: which rows are trained on, how often, and that all of this is recorded."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_registry.core.errors import ConfigError, InputError
from pipelines.commands import train_dpo, train_npo, train_sft
from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from pipelines.configs.train_npo import TrainNpoConfig
from pipelines.core.config import resolve
from pipelines.models.reference import resolve_model
from pipelines.training.data.heldout import split_held_out
from pipelines.training.data.mixing import data_text, mixed_rows, row_numbers
from pipelines.training.inputs import training_inputs
from tests.distributed import worlds

SIZES = st.lists(st.integers(1, 40), min_size=2, max_size=4)


@settings(max_examples=80, deadline=None)
@given(SIZES, st.data(), st.integers(0, 1000))
def test_shares_are_exact_and_no_row_is_left_out(sizes: list[int], data: st.DataObject, seed: int) -> None:
    weights = [data.draw(st.sampled_from([0.1, 0.25, 0.5, 1, 2, 3.3])) for _ in sizes]
    chosen = row_numbers(sizes, weights, seed=seed)
    # The set that is rarest for its weight is used once, and the others in proportion to it.
    length = max(Fraction(size) / Fraction(str(weight)) for size, weight in zip(sizes, weights, strict=True))
    for size, weight, rows in zip(sizes, weights, chosen, strict=True):
        assert abs(len(rows) - Fraction(str(weight)) * length) <= Fraction(1, 2)
        counts = Counter(rows)
        assert set(counts) == set(range(size))
        assert max(counts.values()) - min(counts.values()) <= 1
    assert min(len(rows) // size for size, rows in zip(sizes, chosen, strict=True)) == 1
    assert chosen == row_numbers(sizes, weights, seed=seed)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("mixing")
    worlds.make_model(directory / "model")
    for name, number, seed in (("a", 12, 1), ("b", 5, 2)):
        worlds.make_data(directory / name, number, seed=seed)
        worlds.make_pairs(directory / f"{name}-pairs", number, seed=seed)
    return directory


def config_of(world: Path, *names: str, **options: Any) -> Any:
    config_class = TrainDpoConfig if names[0].endswith("pairs") else TrainSftConfig
    return config_class(model=str(world / "model"), data=[world / name for name in names], out=world / "out", **options)


def texts(rows: Any) -> list[str]:
    return [str(row) for row in rows]


def test_without_weights_every_row_of_every_set_is_there_once(world: Path) -> None:
    alone = [texts(split_held_out(config_of(world, name), "sft")[0]) for name in ("a", "b")]
    both, held_out = split_held_out(config_of(world, "a", "b"), "sft")
    assert texts(both) == [*alone[0], *alone[1]]
    assert held_out is None


@pytest.mark.parametrize("names", [("a", "b"), ("a-pairs", "b-pairs")])
def test_weights_repeat_the_set_that_is_too_small(world: Path, names: tuple[str, str]) -> None:
    task = "preference" if names[0].endswith("pairs") else "sft"
    config = config_of(world, *names, weights=[1, 1])
    rows = texts(split_held_out(config, task)[0])
    alone = [texts(split_held_out(config_of(world, name), task)[0]) for name in names]
    assert rows[:12] == alone[0]
    assert sorted(Counter(rows[12:]).values()) == [2, 2, 2, 3, 3]
    assert set(rows[12:]) == set(alone[1])
    assert data_text(config, len(rows)).endswith("24 rows, in shares 1:1")
    # What is drawn follows from the seed, and from that of the data where it has one of its own.
    other = texts(split_held_out(config_of(world, *names, weights=[1, 1], seed=7), task)[0])
    same = texts(split_held_out(config_of(world, *names, weights=[1, 1], trainer={"data_seed": 7}), task)[0])
    assert other == same != rows


def test_held_out_rows_are_split_off_before_they_could_be_repeated(world: Path) -> None:
    rows, held_out = split_held_out(config_of(world, "a", "b", weights=[1, 3], eval_split=0.3), "sft")
    assert held_out is not None
    assert not set(texts(rows)) & set(texts(held_out))
    assert len(set(texts(held_out))) == len(held_out)
    everything = [row for name in ("a", "b") for row in texts(split_held_out(config_of(world, name), "sft")[0])]
    assert {*texts(rows), *texts(held_out)} == set(everything)


def test_every_set_is_an_input_and_their_order_counts(world: Path) -> None:
    source = resolve_model(str(world / "model"))
    records = training_inputs(config_of(world, "a", "b"), source, task="sft")
    assert [(record.role, Path(record.path).name) for record in records] == [
        ("model", "model"), ("data", "a"), ("data", "b"),
    ]  # fmt: skip
    assert config_of(world, "a", "b").identity() != config_of(world, "a", "b", weights=[2, 1]).identity()


@pytest.mark.parametrize(
    ("names", "weights", "message"),
    [
        (["a"], [1.0], "--weights takes a number for each of several --data, and there are 1"),
        (["a", "b"], [1.0], "--weights takes a number for each of several --data, and there are 2"),
        (["a", "b"], [1.0, 0.0], "numbers greater than 0"),
        (["a", "a"], [], "--data names a data set twice"),
    ],
)
def test_what_cannot_be_mixed_is_refused(world: Path, names: list[str], weights: list[float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config_of(world, *names, weights=weights)


def test_a_set_for_another_task_or_without_a_row_is_named(world: Path) -> None:
    with pytest.raises(InputError, match="b-pairs' holds rows for preference, where sft is needed"):
        split_held_out(config_of(world, "a", "b-pairs"), "sft")
    config = config_of(world, "a", "b", weights=[1, 1])
    whole = [split_held_out(config_of(world, name), "sft")[0] for name in ("a", "b")]
    with pytest.raises(ConfigError, match=r"no row of .*b' is left to train on"):
        mixed_rows(config, [whole[0], whole[1].select([])])


def test_weights_are_read_as_people_write_them() -> None:
    flags = {"model": "m", "data": ["a", "b"], "out": "o", "weights": ["2,1"]}
    assert resolve(TrainSftConfig, flags=flags).weights == [2.0, 1.0]
    assert resolve(TrainSftConfig, flags={"model": "m", "data": "a", "out": "o"}).data == [Path("a")]


@pytest.mark.parametrize("kind", ["sft", "dpo", "npo"])
def test_a_run_says_what_each_set_gives_to_an_epoch(world: Path, kind: str, tmp_path: Path) -> None:
    """Rows that are too long do not count, repeated ones do, and tokens are those that the model reads."""
    pairs = "" if kind == "sft" else "-pairs"
    paths = [world / f"{name}{pairs}" for name in ("a", "b")]
    encode = worlds.encoded_pairs if pairs else worlds.encoded
    lengths = [[read(kind, row) for row in encode(path, world / "model")] for path in paths]
    longest = [[whole(row) for row in encode(path, world / "model")] for path in paths]
    limit = sorted(longest[0])[-2]
    given = {"weights": [1, 1], "max_length": limit, "drop_too_long": True, "precision": "fp32", "max_steps": 1}
    config_class = {"sft": TrainSftConfig, "dpo": TrainDpoConfig, "npo": TrainNpoConfig}[kind]
    run = {"sft": train_sft, "dpo": train_dpo, "npo": train_npo}[kind].run
    config: Any = config_class(model=str(world / "model"), data=paths, out=tmp_path / "run", **given)
    made = run(config).path
    summary = json.loads((made / "manifest.json").read_text())["summary"]
    numbers = row_numbers([12, 5], [1, 1], seed=config.order_seed)
    for path, mine, whole_lengths, tokens in zip(paths, numbers, longest, lengths, strict=True):
        kept = [index for index in mine if whole_lengths[index] <= limit]
        expected = {"rows": len(kept), "tokens": sum(tokens[index] for index in kept)}
        assert summary["data_per_epoch"][str(path)] == expected
    assert sum(entry["rows"] for entry in summary["data_per_epoch"].values()) < 24


def read(kind: str, row: dict[str, Any]) -> int:
    """The tokens that a model reads of a row, counted by hand."""
    if kind == "sft":
        return len(row["input_ids"])
    rejected = len(row["prompt_ids"]) + len(row["rejected_ids"])
    return rejected + (len(row["prompt_ids"]) + len(row["chosen_ids"]) if kind == "dpo" else 0)


def whole(row: dict[str, Any]) -> int:
    if "input_ids" in row:
        return len(row["input_ids"])
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def test_weights_have_the_name_that_other_programs_give_them() -> None:
    flags = {"model": "m", "data": ["a", "b"], "out": "o", "data_weights": "3,1"}
    assert resolve(TrainSftConfig, flags=flags).weights == [3.0, 1.0]
