"""The quickstart: its commands are what it ran, its figures are those of its steps, and a second time does nothing."""

import csv
import importlib
import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
import torch

from data_registry.core.errors import ArtifactError, ConfigError
from data_registry.core.manifest import read_manifest
from data_registry.testbed import MODEL_DIR
from ogpsa_cli import app
from pipelines.commands import quickstart, testbed
from pipelines.configs.commands import BY_NAME
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.configs.run import RecipeConfig
from pipelines.configs.spelling import command_arguments
from pipelines.configs.tools import QuickstartConfig, TestbedConfig
from pipelines.configs.train import TrainSftConfig
from pipelines.core.artifact import command_line, record_command
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from pipelines.recipes.chain import load_chain
from pipelines.reporting.table import format_metric
from pipelines.training import testbed_model


def steps(seed: int):
    config = RecipeConfig(recipe=str(quickstart.RECIPE_FILE), out=Path("demo"), variables={"seed": seed})
    return load_chain(config).steps


CHAIN = steps(seed=3)


def parsed(arguments: list[str], monkeypatch):
    """The configuration that the command line makes of these arguments."""
    found = []
    module = importlib.import_module(f"ogpsa_cli.commands.{BY_NAME[arguments[0]].module}")
    monkeypatch.setattr(module, "execute", lambda config: found.append(config) or 0)
    recorded = command_line()[1:]
    try:
        assert app.invoke(arguments) == 0
    finally:
        record_command(recorded)
    return found[0]


@pytest.mark.parametrize("step", CHAIN, ids=[f"{number}-{step.command}" for number, step in enumerate(CHAIN, 1)])
def test_a_command_typed_again_means_what_was_run(step, monkeypatch):
    typed = shlex.split(shlex.join(step.arguments))
    assert parsed(typed, monkeypatch) == step.config


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("evaluate", EvaluateConfig(model="m", suite=["testbed"], out="o", data=["a b", "c"], overwrite=True)),
        ("evaluate", EvaluateConfig(model="m", suite=["testbed"], out="o", name="it's $HOME", trust_remote_code=True)),
        ("prepare-data", PrepareDataConfig(source="x", out="o", columns={"prompt": "question"})),
        ("train-sft", TrainSftConfig(model="m", data="d", out="o", trainer={"neftune_noise_alpha": 5}, zero=2)),
    ],
)
def test_any_configuration_can_be_spelt(name, config, monkeypatch):
    assert parsed(shlex.split(shlex.join(command_arguments(name, config))), monkeypatch) == config


def test_runs_differ_in_projection_alone_and_in_the_preset():
    configs = [step.config.model_dump() for step in CHAIN if step.command == "train-sft"]
    *others, recommended = configs
    differing = {key for config in others for key in config if config[key] != configs[0][key]}
    assert differing == {"out", "basis", "space", "refresh_every"}
    assert [config["basis"] is None for config in others] == [True, False, False]
    differing = {key for key in recommended if recommended[key] != configs[0][key]}
    assert differing == {"out", "preset", "anchor", "prompt_anchor", "batch_size", "learning_rate"}
    # As many rows in a step, with those of the anchor.
    assert recommended["batch_size"] / (1 - recommended["anchor_ratio"]) == configs[0]["batch_size"]


def test_the_plan_lists_the_commands():
    lines = quickstart.plan(QuickstartConfig(out=Path("demo"), seed=3))
    assert [shlex.split(text) for _, text in lines] == [["ogpsa", *step.arguments] for step in CHAIN]


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="runs in one process"):
        quickstart.run(QuickstartConfig(out=Path("demo")))


# --- A short one, end to end -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The whole quickstart with three training steps and a relative directory."""
    patch, before = pytest.MonkeyPatch(), Path.cwd()
    folder = tmp_path_factory.mktemp("quickstart")
    recipe = folder / "few-steps.yaml"
    recipe.write_text(quickstart.RECIPE_FILE.read_text().replace("sft-steps: 160", "sft-steps: 3"))
    patch.setattr(quickstart, "RECIPE_FILE", recipe)
    os.chdir(folder)
    threads = torch.get_num_threads()
    try:
        first = quickstart.run(QuickstartConfig(out=Path("demo")))
        again = quickstart.run(QuickstartConfig(out=Path("demo")))
        with pytest.raises(ArtifactError, match="made with other settings: seed"):
            quickstart.run(QuickstartConfig(out=Path("demo"), seed=1))
    finally:
        os.chdir(before)
        patch.undo()
    assert torch.get_num_threads() == threads
    return folder / "demo", first, again


def test_a_second_time_everything_is_up_to_date(short):
    _, first, again = short
    assert not first.up_to_date
    assert again.up_to_date
    assert (again.table, again.sentences, again.commands) == (first.table, first.sentences, first.commands)


def test_each_artifact_has_the_command_that_made_it(short):
    folder, first, _ = short
    made = [read_manifest(path.parent).command for path in sorted(folder.rglob("manifest.json"))]
    of_steps = [command for command in made if command[1] in {step.command for step in CHAIN}]
    # A command may make a second artifact beside its own: what the starting model expected.
    assert sorted(set(map(shlex.join, of_steps))) == sorted(first.commands)


def test_the_model_is_the_shipped_one(short):
    folder, _, _ = short
    for file in MODEL_DIR.iterdir():
        assert (folder / "model" / file.name).read_bytes() == file.read_bytes()


def test_the_model_can_be_trained_from_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(testbed_model, "DEFAULT_STEPS", 2)
    made = testbed.run(TestbedConfig(out=tmp_path / "model", retrain=True, seed=5))
    assert made.manifest.summary["steps"] == 2
    assert made.manifest.summary["seed"] == 5
    assert {file.name for file in MODEL_DIR.iterdir()} | {"manifest.json"} == set(os.listdir(tmp_path / "model"))
    load_model(resolve_model(str(tmp_path / "model")), precision="fp32")
    assert testbed.run(TestbedConfig(out=tmp_path / "model", retrain=True, seed=5)).up_to_date


def test_the_table_shows_what_was_measured(short):
    folder, first, _ = short
    assert first.table.runs == tuple(step.config.name for step in CHAIN if step.command == "evaluate")
    assert first.table.runs[:2] == ("starting model", "naive SFT")
    assert [column.metric for column in first.table.columns] == ["safe", "over_refusal", "general"]
    stored = json.loads((folder / "results" / "naive" / "results.json").read_text())
    assert first.table.cells[1][0].value == stored["suites"][0]["metrics"][0]["value"]


def test_the_report_lies_beside_its_steps(short):
    folder, first, _ = short
    charts = {f"{name}.{kind}" for name in ("tradeoff", "figures") for kind in ("png", "svg")}
    assert set(first.manifest.files) == {*charts, "comparisons.csv", "report.html", "table.csv", "table.md"}
    assert first.page == Path("demo/report/report.html")
    text = (folder / "findings.md").read_text()
    assert all(sentence in text for sentence in first.sentences)
    assert len(first.sentences) == 2
    assert len(first.manifest.inputs) == 5


def test_the_report_says_the_same_as_table_and_sentences(short, monkeypatch):
    folder, first, _ = short
    shown = (folder / "report" / "table.md").read_text().splitlines()
    for run, cells in zip(first.table.runs, first.table.cells, strict=True):
        assert f"| {run} | {' | '.join(map(format_metric, cells))} |" in shown
    with (folder / "report" / "comparisons.csv").open() as stream:
        rows = {(row["run"], row["figure"]): row for row in csv.DictReader(stream)}
    loss = -100 * float(rows["naive SFT", "general"]["difference"])
    words = f"loses {loss:.1f} points" if loss > 0 else f"gains {-loss:.1f} points"
    assert words in first.sentences[0] or "shows no change" in first.sentences[0]


def test_the_script_repeats_the_commands_from_anywhere(short, tmp_path):
    folder, first, _ = short
    fake = tmp_path / "ogpsa"
    fake.write_text('#!/bin/sh\nprintf "%s|" "$PWD" "$@" >> "$LOG"\necho >> "$LOG"\n')
    fake.chmod(0o755)
    log = tmp_path / "log"
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log)}
    subprocess.run(["bash", str(folder / "commands.sh")], cwd=tmp_path, env=env, check=True)
    lines = [line.rstrip("|").split("|") for line in log.read_text().splitlines()]
    assert {Path(line[0]).resolve() for line in lines} == {folder.parent.resolve()}
    assert [shlex.join(["ogpsa", *line[1:]]) for line in lines] == list(first.commands)
    assert first.commands[0] == "ogpsa testbed --out demo/model"


def test_the_real_commands_find_everything_done(short, monkeypatch):
    folder, _, _ = short
    monkeypatch.chdir(folder.parent)
    step = [step for step in steps(seed=0) if step.command == "evaluate"][-1]
    from pipelines.commands import evaluate

    config = parsed(step.arguments, monkeypatch)
    assert evaluate.run(config).up_to_date
