"""Tokens and passwords are hidden in what is recorded; everything else is recorded as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_registry.core.errors import ArtifactError, ConfigError
from data_registry.core.manifest import InputRecord
from data_registry.core.redaction import hide, hide_arguments, hide_values, is_secret_name
from pipelines.configs.commands import COMMANDS
from pipelines.core import artifact
from pipelines.core.artifact import find_finished, record_command, write_artifact
from pipelines.core.config import CommandConfig, option, resolve

TOKEN = "hf_" + "Ab1" * 10


class Sample(CommandConfig):
    """A command for tests."""

    name: str | None = option(None, "A name.")
    trainer: dict[str, Any] = option({}, "Options of a library.")
    columns: dict[str, str] = option({}, "Names of columns.")


HIDDEN_ARGUMENTS = [
    (["--set", "trainer.hub_token=abc"], ["--set", "trainer.hub_token=***"]),
    (["--set", "trainer={hub_token: abc, bf16: true}"], ["--set", "trainer={hub_token: ***, bf16: true}"]),
    (["--set", 'trainer={"api_key": "a b"}'], ["--set", 'trainer={"api_key": "***"}']),
    (["--hub-token", "abc", "--lr", "1"], ["--hub-token", "***", "--lr", "1"]),
    (["--password=a=b c"], ["--password=***"]),
    (["--judge-args", "model=m,api_key=abc,n=1"], ["--judge-args", "model=m,api_key=***,n=1"]),
    (["--judge-args", "key=abc"], ["--judge-args", "key=***"]),
    (["--judge-args", "model=m,key=abc"], ["--judge-args", "model=m,key=***"]),
    (["WANDB_API_KEY=0123456789abcdef"], ["WANDB_API_KEY=***"]),
    (["https://me:pass@word@host/data.jsonl"], ["https://me:***@host/data.jsonl"]),
    ([f"https://{TOKEN}@huggingface.co/x"], ["https://***@huggingface.co/x"]),
    (["https://host/x?a=1&token=abc&b=2"], ["https://host/x?a=1&token=***&b=2"]),
    (["s3://b/x?X-Amz-Signature=abc"], ["s3://b/x?X-Amz-Signature=***"]),
    (["--name", f"run {TOKEN}"], ["--name", "run ***"]),
    (["--name", "ghp_" + "a1" * 18], ["--name", "***"]),
    (["--name", "sk-proj-" + "a1" * 18], ["--name", "***"]),
]


@pytest.mark.parametrize(("typed", "recorded"), HIDDEN_ARGUMENTS, ids=lambda value: value[-1])
def test_arguments_are_recorded_without_them(typed: list[str], recorded: list[str]) -> None:
    assert hide_arguments(typed) == recorded
    assert hide_arguments(recorded) == recorded


@pytest.mark.parametrize(
    "argument",
    [
        "--max-new-tokens=256", "--set=tokenizer.pad_token=<pad>", "eos_token=</s>", "columns.key=question", "tokens=5",
        "data/token=1/part.parquet", "git@host:me/x", "ssh://git@host/x", "HF_TOKEN=$HF_TOKEN", "use_auth_token=true",
        "hub_token=null", "Answer key: B", "models/hf_llama_export", "sk-learn", "prompt_key=text", "C:/keys/a",
        "a" * 40, "The token: it is a word",
    ],
)  # fmt: skip
def test_other_arguments_are_recorded_as_they_are(argument: str) -> None:
    assert hide_arguments(["--set", argument]) == ["--set", argument]


def test_a_message_is_no_option() -> None:
    said = "--set takes KEY=VALUE, not 'token=<pad>'; pad token=0, key=3"
    assert hide(said) == said
    assert hide("cannot log in with api_key=abc and HF_TOKEN=abc") == "cannot log in with api_key=*** and HF_TOKEN=***"


def test_values_of_the_environment_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123")
    monkeypatch.setenv("SOME_SECRET", "production")
    assert hide("with 0123456789abcdef0123 in production") == "with *** in production"


def test_values_are_hidden_by_name_at_any_depth() -> None:
    value = {"trainer": {"hub_token": "a", "deep": [{"password": 12345, "eos_token": "</s>"}], "use_auth_token": True}}
    hidden = {
        "trainer": {"hub_token": "***", "deep": [{"password": "***", "eos_token": "</s>"}], "use_auth_token": True}
    }
    assert hide_values(value) == hidden
    assert hide_values({"columns": {"key": "question", "token": "text"}}) == {
        "columns": {"key": "question", "token": "text"}
    }


def test_no_option_of_a_command_is_taken_for_a_token() -> None:
    names = {name for entry in COMMANDS for name in entry.config_class().model_fields}
    assert len(names) > 80
    assert [name for name in sorted(names) if is_secret_name(name)] == []


def make(target: Path, config: CommandConfig) -> Path:
    inputs = [InputRecord(role="data", path=f"https://me:{TOKEN}@host/x", kind="file", fingerprint="0" * 64)]
    with write_artifact(target, "run", config, inputs) as writer:
        (writer.path / "config.yaml").write_text(config.to_yaml())
        writer.summary = {"said": f"token {TOKEN}"}
    return target


def test_an_artifact_holds_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "_recorded_command", None)
    record_command(["train-sft", "--set", "trainer.hub_token=swordfish", "--name", TOKEN])
    config = Sample(name=f"with {TOKEN}", trainer={"hub_token": "swordfish", "seed": 3})
    made = make(tmp_path / "run", config)
    for file in made.rglob("*"):
        assert b"swordfish" not in file.read_bytes(), file
        assert TOKEN.encode() not in file.read_bytes(), file
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["config"]["trainer"] == {"hub_token": "***", "seed": 3}
    assert manifest["command"] == ["ogpsa", "train-sft", "--set", "trainer.hub_token=***", "--name", "***"]


def test_another_token_is_no_other_setting_and_another_setting_is(tmp_path: Path) -> None:
    config = Sample(trainer={"hub_token": "swordfish", "seed": 3})
    inputs = [InputRecord(role="data", path="x", kind="file", fingerprint="0" * 64)]
    made = make(tmp_path / "run", config)
    renewed = Sample(trainer={"hub_token": "herring", "seed": 3})
    found = find_finished(made, "run", renewed, inputs, overwrite=False)
    assert found is not None
    changed = Sample(trainer={"hub_token": "swordfish", "seed": 4}, columns={"key": "a"})
    assert changed.differences(found.config) == ["trainer", "columns"]
    assert Sample(columns={"key": "a"}).identity_hash() != Sample(columns={"key": "b"}).identity_hash()


def test_values_that_are_hidden_and_determine_the_result_are_told_apart(tmp_path: Path) -> None:
    first, second = Sample(trainer={"loss_key": "a"}), Sample(trainer={"loss_key": "b"})
    assert first.recorded() == second.recorded()
    inputs = [InputRecord(role="data", path="x", kind="file", fingerprint="0" * 64)]
    made = make(tmp_path / "run", first)
    assert find_finished(made, "run", first, inputs, overwrite=False) is not None
    with pytest.raises(ArtifactError, match="a value that is hidden in its record"):
        find_finished(made, "run", second, inputs, overwrite=False)


def test_recorded_options_that_lack_a_token_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(Sample(trainer={"hub_token": "swordfish"}).to_yaml())
    with pytest.raises(ConfigError, match=r"the value of trainer.hub_token was hidden"):
        resolve(Sample, file=file)
    given = resolve(Sample, file=file, sets=["trainer.hub_token=herring"])
    assert given.trainer == {"hub_token": "herring"}
