"""The commands one after the other: what they print, where the result lies, and what they say comes next."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from ogpsa_cli.launch import processes
from tests.cli.conftest import Cli, Outcome


def next_command(outcome: Outcome) -> list[str]:
    """The command that is proposed last, as arguments."""
    lines = re.findall(r"^(?:next:|or:) +ogpsa (.*)$", outcome.err, flags=re.MULTILINE)
    return shlex.split(lines[-1], comments=True)


def last_result(outcome: Outcome) -> str:
    return next(line for line in outcome.out.splitlines() if re.match(r"(\w[\w ]*|up to date): ", line))


# --- The chain ---------------------------------------------------------------------------------------------------


def test_prepare_data_counts_and_shows_rows(cli: Cli, made: Path, tmp_path: Path) -> None:
    rows = [{"instruction": f"what is {n} ?", "output": "a number"} for n in range(8)]
    rows += [rows[0], {"instruction": "what is it ?", "output": ""}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--max-dropped", "0.2", "--tokenizer", made / "model", "--preview", "1"]
    outcome = cli("prepare-data", "rows.jsonl", *arguments, "--out", "data")
    assert outcome.code == 0, outcome.err
    assert last_result(outcome) == "data set: data"
    assert re.search(r"^ +10 rows read", outcome.out, flags=re.MULTILINE)
    assert re.search(r"^ +1 duplicates", outcome.out, flags=re.MULTILINE)
    assert re.search(r"^ +1 dropped as empty", outcome.out, flags=re.MULTILINE)
    assert re.search(r"^ +8 rows kept for sft", outcome.out, flags=re.MULTILINE)
    assert re.search(r"<user> what is 0 \? <bot>«.*<end>»", outcome.out)
    assert next_command(outcome)[:2] == ["train-sft", "MODEL"]
    again = cli("prepare-data", "rows.jsonl", *arguments, "--out", "data")
    assert last_result(again) == "up to date: data"
    # The same rows for another run of the same command are no other data set.
    assert cli("prepare-data", "rows.jsonl", "--max-dropped", "0.3", "--out", "data").code == 3


@pytest.mark.parametrize("source", ["gsm8k-test", "halueval-test"])
def test_what_is_there_to_measure_on_is_not_proposed_for_training(cli: Cli, tmp_path: Path, source: str) -> None:
    outcome = cli("prepare-data", source, "--num-samples", "2", "--out", tmp_path / "data")
    assert outcome.code == 0, outcome.err
    expected = ["evaluate", "MODEL", "--suite", "reference-loss", "--data", str(tmp_path / "data"), "--out", "RESULTS"]
    assert next_command(outcome) == expected


def test_the_registry_is_listed_and_described(cli: Cli) -> None:
    listed = cli("prepare-data", "--list")
    assert listed.code == 0
    assert all(name in listed.out for name in ("gsm8k", "saferlhf", "testbed-reason", "xstest"))
    described = cli("prepare-data", "gsm8k", "--describe")
    assert described.code == 0
    assert "openai/gsm8k" in described.out
    assert "MIT" in described.out
    assert not any(line != line.rstrip() for line in [*listed.out.splitlines(), *described.out.splitlines()])


def test_every_step_proposes_one_that_works(cli: Cli, made: Path, tmp_path: Path) -> None:
    model, general, safety = (shutil.copytree(made / name, tmp_path / name) for name in ("model", "general", "safety"))
    fast = ["--precision", "fp32"]
    built = cli("build-basis", model, "--reference", general, "--num-samples", "2", *fast, "--out", "basis")
    assert built.code == 0, built.err
    assert last_result(built) == "basis: basis"

    proposed = [str(safety) if word == "DATA" else word for word in next_command(built)]
    trained = cli(*proposed, *fast, "--max-steps", "1", "--refresh-every", "0")
    assert trained.code == 0, trained.err
    assert last_result(trained) == "run: runs/sft"

    proposed = [str(general) if word == "DATA" else word for word in next_command(trained)]
    evaluated = cli(*proposed, "--num-samples", "4")
    assert evaluated.code == 0, evaluated.err
    assert "95 % interval" in evaluated.out
    assert last_result(evaluated) == "results: results"

    inspected = cli(*next_command(evaluated))
    assert inspected.code == 0, inspected.err
    assert inspected.err == ""
    lineage = inspected.out[inspected.out.index("made from") :]
    order = [lineage.index(text) for text in ("results results", "model: run", "basis: basis", "reference general")]
    assert order == sorted(order)
    assert lineage.count("[intact]") >= 6


def test_testbed_writes_a_model_that_commands_accept(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("testbed", "--out", "model")
    assert outcome.code == 0, outcome.err
    inspected = cli("inspect", "model", "--as-json")
    found = json.loads(inspected.out)
    assert found["intact"] is True
    assert found["model"]["architecture"] == "LlamaForCausalLM"


# --- inspect and doctor ------------------------------------------------------------------------------------------


def _num_parameters(model: Path) -> int:
    from safetensors.torch import load_file

    return sum(tensor.numel() for tensor in load_file(model / "model.safetensors").values())


def test_inspect_shows_a_model_directory(cli: Cli, made: Path) -> None:
    outcome = cli("inspect", made / "model")
    assert outcome.code == 0
    assert "LlamaForCausalLM" in outcome.out
    assert f"{_num_parameters(made / 'model'):,}" in outcome.out


def test_inspect_ends_with_3_and_still_shows_what_it_found(cli: Cli, made: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(made / "basis", tmp_path / "basis")
    next(damaged.glob("*.safetensors")).write_bytes(b"x")
    for arguments in ([], ["--as-json"], ["--fast"]):
        outcome = cli("inspect", damaged, *arguments)
        assert outcome.code == 3
        assert outcome.err.startswith("error: ")
        assert "1 bytes, not" in outcome.out


def test_doctor_as_table_and_as_json(cli: Cli) -> None:
    table = cli("doctor")
    assert table.code == 0
    assert "Everything works here" in table.out or "things will not work here" in table.out
    findings = json.loads(cli("doctor", "--as-json").out)
    assert {finding["state"] for finding in findings} <= {"ok", "limited", "missing", "info"}


# --- Several processes -------------------------------------------------------------------------------------------


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    """Notes what would be launched, and lets it end with 75."""
    calls: list[tuple[int, list[str]]] = []

    def start(num_procs: int, arguments: list[str]) -> int:
        calls.append((num_procs, list(arguments)))
        return 75

    monkeypatch.setattr(processes, "start", start)
    return calls


COMMAND = ["build-basis", "model", "--reference", "data", "--out", "basis"]


def test_one_process_for_each_gpu_is_started(
    cli: Cli, launched: list[tuple[int, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "num_devices", lambda: 4)
    assert cli(*COMMAND).code == 75
    assert launched == [(4, COMMAND)]


def test_the_number_asked_for_is_started(cli: Cli, launched: list[tuple[int, list[str]]]) -> None:
    assert cli(*COMMAND, "--num-procs", "3").code == 75
    assert launched == [(3, [*COMMAND, "--num-procs", "3"])]


def test_nothing_is_started_inside_a_launch_or_for_a_dry_run(
    cli: Cli, launched: list[tuple[int, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli(*COMMAND, "--num-procs", "3", "--dry-run")
    variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    cli("build-basis", "model", "--reference", "data", "--num-procs", "3")  # --out is missing: ends before any work
    assert launched == []


def test_a_wrong_option_is_told_before_anything_is_started(cli: Cli, launched: list[tuple[int, list[str]]]) -> None:
    assert cli(*COMMAND, "--num-procs", "2", "--dtype", "fp16").code == 2
    assert launched == []
