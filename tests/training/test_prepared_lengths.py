"""The longest sequence is settled when data is prepared; training takes it from there unless another one is given."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from data_registry.core.errors import ArtifactError
from data_registry.prepared import load_prepared
from pipelines.commands import build_basis, build_mask, prepare_data, score_tokens, train_sft
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.build_mask import BuildMaskConfig
from pipelines.configs.lengths import DEFAULT_LENGTH, Length
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.configs.run import RecipeConfig
from pipelines.configs.score_tokens import ScoreTokensConfig
from pipelines.configs.train import TrainSftConfig
from pipelines.recipes.chain import load_chain
from pipelines.recipes.state import states_of
from tests.cli.conftest import TESTBED_MODEL

# Shorter than most rows, which have some twenty tokens.
SHORT = 16


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lengths")
    shutil.copytree(TESTBED_MODEL, folder / "model")
    for name, length in {"short": SHORT, "longer": 24, "none": None, "beyond": 4096}.items():
        tokens: dict[str, Any] = {} if length is None else {"tokenizer": str(folder / "model"), "max_length": length}
        prepare_data.run(PrepareDataConfig(source="testbed-reason", num_samples=12, out=folder / name, **tokens))
    shutil.copytree(folder / "short", folder / "edited")
    manifest = json.loads((folder / "edited/manifest.json").read_text())
    manifest["config"]["max_length"] = True
    (folder / "edited/manifest.json").write_text(json.dumps(manifest))
    (folder / "damaged").mkdir()
    (folder / "damaged/manifest.json").write_text("{")
    return folder


def options(made: Path, *data: str, **given: Any) -> TrainSftConfig:
    values = {"model": str(made / "model"), "out": made / "run", "max_steps": 1, "precision": "fp32", **given}
    return TrainSftConfig(data=[made / name for name in data], **values)


@pytest.mark.parametrize(
    ("data", "given", "tokens", "origin"),
    [
        (["short"], {}, SHORT, "as '{0}/short' was prepared"),
        (["short"], {"max_length": 20}, 20, "by --max-length"),
        (["short", "longer"], {}, 24, "as '{0}/longer' was prepared"),
        (["longer", "short"], {}, 24, "as '{0}/longer' was prepared"),
        (["none"], {}, DEFAULT_LENGTH, "the default: '{0}/none' has no length"),
        # Rows of which nobody counted tokens are not cut further than they always were.
        (["short", "none"], {}, DEFAULT_LENGTH, "the default: '{0}/none' has no length"),
        (["none", "beyond"], {}, 4096, "as '{0}/beyond' was prepared"),
        (["edited"], {}, DEFAULT_LENGTH, "the default: '{0}/edited' has no length"),
        # Whoever reads the rows says what is wrong.
        (["damaged"], {}, DEFAULT_LENGTH, "the default: '{0}/damaged' has no length"),
        (["absent", "short"], {}, DEFAULT_LENGTH, "the default: '{0}/absent' has no length"),
    ],
)
def test_where_the_length_is_from(made: Path, data: list[str], given: dict[str, Any], tokens: int, origin: str) -> None:
    found = options(made, *data, **given)
    assert found.length() == Length(tokens, origin.format(made), is_prepared="was prepared" in origin)
    assert found.settled().max_length == tokens


def test_replay_and_held_out_data_count_as_the_rows_do_and_anchors_where_they_have_a_length(made: Path) -> None:
    for role in ({"replay": made / "longer", "replay_ratio": 0.5}, {"eval_data": made / "longer"}):
        assert options(made, "short", **role).length().tokens == 24
    assert options(made, "short", anchor=[made / "longer"]).length().tokens == 24
    assert options(made, "short", anchor=[made / "none"]).length().tokens == SHORT


def test_a_run_records_it_and_is_that_of_the_option(made: Path, tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.INFO):
        run = train_sft.run(options(made, "short", out=tmp_path / "run"))
    assert f"longest sequence: {SHORT} tokens, as '{made / 'short'}' was prepared" in caplog.text
    assert "as the preparation said" not in caplog.text
    assert run.manifest.config["max_length"] == SHORT
    rows, _ = load_prepared(made / "short")
    last = json.loads((run.path / "metrics.jsonl").read_text().splitlines()[-1])
    # Whole rows have more tokens than twelve times the length; the whole run is one step.
    assert 0 < last["train_tokens"] <= SHORT * len(rows) < sum(len(str(row["messages"]).split()) for row in rows) * 2
    for given in ({}, {"max_length": SHORT}):
        assert train_sft.run(options(made, "short", out=tmp_path / "run", **given)).up_to_date
    with pytest.raises(ArtifactError, match="max_length"):
        train_sft.run(options(made, "short", out=tmp_path / "run", max_length=20))


def test_the_plan_says_where_it_is_from(made: Path) -> None:
    plan = dict(train_sft.plan(options(made, "short")))
    assert plan["length"] == f"at most {SHORT} tokens, as '{made / 'short'}' was prepared"
    assert plan["tokens"] == f"at most {16 * SHORT:,}"
    assert dict(train_sft.plan(options(made, "short", max_length=20)))["length"] == "at most 20 tokens, by --max-length"


def test_other_commands_that_read_rows_as_training_does(made: Path, tmp_path: Path) -> None:
    model, out = str(made / "model"), tmp_path / "out"
    wanted = f"at most {SHORT} tokens, as '{made / 'short'}' was prepared"
    basis = BuildBasisConfig(model=model, reference=[made / "short"], num_samples=2, out=out)
    assert dict(build_basis.plan(basis))["length"] == wanted
    mask = BuildMaskConfig(model=model, data=made / "short", score="fisher", num_samples=2, out=out)
    assert dict(build_mask.plan(mask))["length"] == wanted
    scored = ScoreTokensConfig(model=model, data=made / "short", rule="logprob", map="top", out=out)
    assert wanted in dict(score_tokens.plan(scored))["answers"]
    assert score_tokens.run(scored).manifest.config["max_length"] == SHORT
    # A mask without data has no rows to cut, and one that was made before lengths were settled is still the same.
    alone = BuildMaskConfig(model=model, score="random", out=out)
    assert alone.settled().max_length is None
    assert alone.differences({**alone.recorded(), "max_length": DEFAULT_LENGTH}) == []


def test_a_chain_knows_its_runs_again(made: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "chain.yaml"
    options = {"model": made / "model", "data": tmp_path / "data", "max-steps": 1, "precision": "fp32"}
    listed = ", ".join(f"{name}: {value}" for name, value in options.items())
    recipe.write_text(
        f"description: one run\nout: {tmp_path}\nsteps:\n  train:\n    command: train-sft\n"
        f"    options: {{{listed}, out: '${{out}}/run'}}\n"
    )
    shutil.copytree(made / "short", tmp_path / "data")
    (step,) = load_chain(RecipeConfig(recipe=str(recipe))).steps
    assert states_of([step])["train"].word == "to do"
    train_sft.run(step.config)
    assert states_of([step])["train"].word == "up to date"
    shutil.rmtree(tmp_path / "data")
    assert states_of([step])["train"].word == "up to date"
    shutil.copytree(made / "longer", tmp_path / "data")
    assert states_of([step])["train"].note == "max_length"
