"""Pushing to the hub: refused in seconds where it cannot work, never at the cost of the run, with the right card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import huggingface_hub
import pytest
import yaml
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

from data_registry.core.errors import ConfigError, InputError
from data_registry.core.manifest import InputRecord
from data_registry.hub import network
from pipelines.commands import train_dpo, train_sft
from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from pipelines.core.artifact import write_artifact
from pipelines.core.config import resolve
from pipelines.models import loading
from pipelines.models.lineage import hub_base
from pipelines.models.publishing import check_can_push, upload_command
from tests.distributed import worlds

TOKEN = "hf_" + "q" * 34


class FakeHub:
    """What ``HfApi`` is asked, and what it answers."""

    def __init__(self) -> None:
        self.account: dict[str, Any] = {"name": "ada", "orgs": [{"name": "lab"}]}
        self.account["auth"] = {"accessToken": {"role": "write"}}
        self.refusal: Exception | None = None
        self.failure: Exception | None = None
        self.made: list[tuple[str, Any]] = []
        self.pushed: list[tuple[str, dict[str, str]]] = []

    def whoami(self) -> dict[str, Any]:
        if self.refusal is not None:
            raise self.refusal
        return self.account

    def create_repo(self, name: str, *, private: bool | None, exist_ok: bool) -> str:
        assert exist_ok
        self.made.append((name, private))
        return f"https://hub/{name}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        if self.failure is not None:
            raise self.failure
        assert TOKEN not in commit_message
        self.pushed.append((repo_id, {path.name: str(path) for path in folder_path.iterdir()}))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: TOKEN)
    monkeypatch.setattr(network, "settle", lambda: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return fake


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("publishing")
    worlds.make_model(directory / "model")
    worlds.make_data(directory / "data", 4, seed=1)
    worlds.make_pairs(directory / "pairs", 4, seed=2)
    return directory


def config_of(world: Path, out: Path, **given: Any) -> TrainSftConfig:
    values: dict[str, Any] = {"precision": "fp32", "max_steps": 1, "push_to_hub": "lab/safe", **given}
    return TrainSftConfig(model=str(world / "model"), data=[world / "data"], out=out, **values)


def refusal(status: int) -> HfHubHTTPError:
    return HfHubHTTPError(f"{status} Client Error", response=mock.Mock(status_code=status, headers={}))


def test_a_finished_model_is_pushed_and_the_same_command_pushes_again(
    world: Path, hub: FakeHub, tmp_path: Path
) -> None:
    config = config_of(world, tmp_path / "run", hub_private=True)
    run = train_sft.run(config).path
    again = train_sft.run(config)
    assert again.up_to_date
    (name, files), second = hub.pushed
    assert second[0] == name == "lab/safe"
    assert {"README.md", "model.safetensors", "config.json", "tokenizer.json"} <= set(files)
    assert hub.made == [("lab/safe", True)] * 2
    assert TOKEN not in "".join(path.read_text() for path in run.rglob("*") if path.suffix in (".json", ".md", ".yaml"))
    # A run that was made without pushing is pushed by the same command with the option: nothing is trained.
    train_sft.run(config_of(world, tmp_path / "plain", push_to_hub=None))
    assert train_sft.run(config_of(world, tmp_path / "plain")).up_to_date
    assert hub.made[-1] == ("lab/safe", None)


def test_a_push_that_fails_loses_nothing_and_says_how_to_go_on(world: Path, hub: FakeHub, tmp_path: Path) -> None:
    config = config_of(world, tmp_path / "run")
    hub.failure = OSError("connection reset")
    with pytest.raises(InputError, match="the run is finished and whole") as caught:
        train_sft.run(config)
    assert "connection reset" in caught.value.what
    assert caught.value.where == str(tmp_path / "run" / "model")
    assert upload_command("lab/safe", tmp_path / "run" / "model") in str(caught.value.fix)
    assert (tmp_path / "run" / "manifest.json").exists()
    hub.failure = None
    assert train_sft.run(config).up_to_date
    assert len(hub.pushed) == 1


def test_what_cannot_work_is_refused_before_anything_is_loaded(
    world: Path, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("loaded")

    monkeypatch.setattr(loading, "_load_weights", never)
    hub.refusal = refusal(401)
    for run in (train_sft.run, train_sft.plan):
        with pytest.raises(ConfigError, match="the hub refuses the token"):
            run(config_of(world, tmp_path / "run"))  # type: ignore[operator]
    assert not (tmp_path / "run").exists()


def test_accounts(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert check_can_push("safe") == "ada/safe"
    assert check_can_push("lab/safe") == "lab/safe"
    assert caplog.text == ""
    assert check_can_push("others/safe") == "others/safe"
    assert "no member of 'others'" in caplog.text
    hub.account["auth"]["accessToken"]["role"] = "read"
    with pytest.raises(ConfigError, match="may only read"):
        check_can_push("lab/safe")
    hub.refusal = OSError("timed out")
    with pytest.raises(InputError, match="does not answer: timed out"):
        check_can_push("lab/safe")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="cannot be reached"):
        check_can_push("lab/safe")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ConfigError, match="nobody is logged in"):
        check_can_push("lab/safe")


@pytest.mark.parametrize("name", ["a/b/c", "has space", "-x/y", "a..b/c", "../x", "é/x"])
def test_names_that_cannot_be_repositories_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--push-to-hub"):
        resolve(TrainSftConfig, flags={"model": "m", "data": ["d"], "out": "o", "push_to_hub": name})


def record(path: str, kind: str = "model", role: str = "model") -> InputRecord:
    return InputRecord(role=role, path=path, kind=kind, fingerprint="f")


def run_from(directory: Path, *inputs: InputRecord) -> InputRecord:
    with write_artifact(directory, "run", TrainSftConfig(model="m", data=[Path("d")], out=directory), list(inputs)):
        pass
    return record(str(directory), "run")


def test_the_base_is_the_hubs_model_at_the_beginning_of_the_chain(tmp_path: Path) -> None:
    begun = run_from(tmp_path / "sft", record("Qwen/Qwen2.5-0.5B"), record("data", "dataset", "data"))
    assert hub_base([run_from(tmp_path / "dpo", begun)]) == "Qwen/Qwen2.5-0.5B"
    adapter = record("lab/adapter")
    assert hub_base([adapter, record("lab/base", role="base")]) == "lab/base"
    assert hub_base([record(str(tmp_path / "model"))]) is None
    assert hub_base([run_from(tmp_path / "local", record(str(tmp_path / "model")))]) is None
    assert hub_base([record(str(tmp_path / "gone"), "run")]) is None
    assert hub_base([record("/cache/hub/models--lab--small-1/snapshots/0a1b")]) == "lab/small-1"
    assert hub_base([]) is None
    # A chain that leads back to itself, as a damaged manifest might say, ends.
    assert hub_base([run_from(tmp_path / "round", record(str(tmp_path / "round"), "run"))]) is None


def test_the_card_of_a_chain_names_the_model_of_the_hub_or_none(world: Path, tmp_path: Path) -> None:
    sft = train_sft.run(config_of(world, tmp_path / "sft", push_to_hub=None)).path

    def front(run: Path) -> dict[str, Any]:
        values: dict[str, Any] = yaml.safe_load((run / "model" / "README.md").read_text().split("---")[1])
        return values

    assert "base_model" not in front(sft)
    # As if it had been made from the hub: only what the manifest says of its input is another.
    manifest = json.loads((sft / "manifest.json").read_text())
    for entry in manifest["inputs"]:
        if entry["role"] == "model":
            entry["path"] = "lab/small"
    (sft / "manifest.json").write_text(json.dumps(manifest))
    values: dict[str, Any] = {"precision": "fp32", "max_steps": 1}
    dpo = train_dpo.run(TrainDpoConfig(model=str(sft), data=[world / "pairs"], out=tmp_path / "dpo", **values)).path
    assert front(dpo)["base_model"] == "lab/small"
