"""ogpsa run: recipes are checked as a whole, run step by step, skipped where done, stopped by failures and signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from data_registry.core.errors import ConfigError
from data_registry.core.manifest import read_manifest
from ogpsa_cli.launch.steps import StepRunner
from pipelines.configs import commands
from pipelines.configs.run import RunConfig
from pipelines.core.config import resolve
from pipelines.recipes.chain import Step, load_chain
from pipelines.recipes.recipe import shipped_names
from tests.cli.conftest import Cli

TWO_STEPS = """\
description: Two data sets.
out: made
variables: {rows: 5, seed: 1}
steps:
  first:
    command: prepare-data
    options: {source: testbed-reason, num-samples: "${rows}", seed: "${seed}"}
  second:
    command: prepare-data
    after: [first]
    options: {source: testbed-assist, num-samples: "${steps.first.num-samples}", out: "${out}/data/second"}
"""


def write(text: str, name: str = "recipe.yaml") -> str:
    Path(name).write_text(text)
    return name


def chain_of(text: str, tmp_path: Path, **changes: object) -> dict[str, Step]:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    steps = load_chain(resolve(RunConfig, flags={"recipe": str(path), **changes})).steps
    return {step.name: step for step in steps}


def problems_of(text: str, tmp_path: Path, **changes: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        chain_of(text, tmp_path, **changes)
    return caught.value.problems


# --- What a recipe says ------------------------------------------------------------------------------------------


def test_every_command_that_makes_something_can_be_a_step() -> None:
    makes = set()
    for entry in commands.COMMANDS:
        if "out" in entry.config_class().model_fields:
            makes.add(entry.name)
    assert set(commands.STEPS) <= makes
    assert makes - set(commands.STEPS) == {"quickstart", "run", "slurm"}


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_recipes_are_whole(name: str) -> None:
    chain = load_chain(RunConfig(recipe=name))
    assert len(chain.steps) >= 8
    made = {str(step.out) for step in chain.steps}
    for step in chain.steps:
        read = [str(item) for _, value in step.config for item in (value if isinstance(value, list) else [value])]
        # Whatever lies below the recipe's directory is made by a step of it.
        assert {item for item in read if item.startswith(f"{chain.out}/")} <= made


LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


@pytest.mark.parametrize("changed", [{}, {"model": LLAMA}])
def test_the_papers_recipe_has_its_hyper_parameters(changed: dict[str, str]) -> None:
    steps = {step.name: dict(step.config) for step in load_chain(RunConfig(recipe="paper", variables=changed)).steps}
    both = {"learning_rate": 1e-6, "schedule": "cosine", "warmup_steps": 0, "max_grad_norm": 1.0, "max_length": 2048,
            "space": "gradient", "strength": 1.0, "refresh_samples": 200, "precision": "bf16", "zero": 2}  # fmt: skip
    sft = {"epochs": 3, "batch_size": 4, "accumulation": 4, "refresh_every": 30, **both}
    dpo = {"epochs": 1, "batch_size": 2, "accumulation": 16, "refresh_every": 5, "beta": 0.2, "loss": "sigmoid", **both}
    for step, published in (("sft", sft), ("dpo", dpo)):
        assert {key: steps[step][key] for key in published} == published
    assert (steps["basis-sft"]["num_samples"], len(steps["basis-sft"]["reference"])) == (200, 2)
    assert (steps["basis-dpo"]["num_samples"], steps["basis-dpo"]["objective"]) == (200, "sft-pairs")


def test_the_papers_two_models_differ_by_the_model_alone() -> None:
    """What holds for one of them holds for the other."""
    qwen, llama = (
        [(step.name, step.config.model_dump()) for step in load_chain(RunConfig(recipe="paper", **changed)).steps]
        for changed in ({}, {"variables": {"model": LLAMA}})
    )
    text = str(qwen).replace("Qwen/Qwen2.5-7B-Instruct", LLAMA)
    assert text == str(llama)
    assert text != str(qwen)


def test_references_keep_types_and_order_steps(tmp_path: Path) -> None:
    more = """\
steps:
  last:
    command: evaluate
    options:
      model: ${steps.tuned.out}
      suite: reference-loss
      data: ["${steps.second.out}"]
      name: rows ${rows}, $${kept}
  tuned: {command: train-sft, options: {model: M, data: "${steps.first.out}", seed: "${seed}"}}
"""
    text = TWO_STEPS.replace("steps:\n", more, 1)
    steps = chain_of(text, tmp_path)
    assert list(steps) == ["first", "tuned", "second", "last"]
    assert steps["last"].needs == ("tuned", "second")
    last, second = dict(steps["last"].config), dict(steps["second"].config)
    assert (last["model"], last["data"], last["name"]) == ("made/tuned", [Path("made/data/second")], "rows 5, ${kept}")
    assert second["num_samples"] == 5
    assert steps["first"].out == Path("made/first")


def test_the_command_line_changes_variables_steps_and_place(cli: Cli) -> None:
    write(TWO_STEPS)
    done = cli("run", "recipe.yaml", "--dry-run", "--set", "rows=7", "--set", "steps.first.seed=9", "--out", "o")
    assert done.code == 0
    assert "ogpsa prepare-data testbed-reason --num-samples 7 --seed 9 --out o/first\n" in done.out
    assert "ogpsa prepare-data testbed-assist --num-samples 7 --out o/data/second\n" in done.out


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("${rows}", "${row}", "step 'first', option 'num-samples': there is no variable 'row' (did you mean 'rows'?)"),
        ("steps.first.num", "steps.frist.num", "step 'second', option 'num-samples': ${steps.frist.num-samples}: there "
         "is no step 'frist' (did you mean 'first'?)"),
        ("first.num-samples", "first.subset", "step 'second', option 'num-samples': ${steps.first.subset}: step "
         "'first' does not give the option 'subset'"),
        ("first.num-samples", "first", "step 'second', option 'num-samples': ${steps.first}: write "
         "${steps.first.OPTION}, such as ${steps.first.out}"),
        ("after: [first]", "after: [fist]", "step 'second', after: there is no step 'fist' (did you mean 'first'?)"),
        ("rows: 5", "rows: '${seed}${rows}'",
         "step 'first', option 'num-samples': ${rows} -> ${rows} refers to itself"),
        ('seed: "${seed}"', 'sed: "${seed}"', "step 'first': unknown option 'sed' (did you mean 'seed'?)"),
        ("command: prepare-data\n    after", "command: prepare-date\n    after", "step 'second': there is no command "
         "'prepare-date' for steps (did you mean 'prepare-data'?); there are " + ", ".join(commands.STEPS)),
        ("${out}/data/second", "made/first", "steps 'first' and 'second' both write to 'made/first'"),
        ("rows: 5", "rows: many", "step 'first': option --num-samples: needs a whole number, got 'many'"),
        ('seed: "${seed}"', "overwrite: true", "step 'first': 'overwrite' is not for one step; give it to the recipe"),
        ("rows: 5", "out: 5", "a variable cannot be named 'out': --set out=... means an option of the command"),
        ("  second:", "  'a b':", "'steps': a step cannot be named 'a b': take letters, digits, - and _"),
        ("out: made", "", "'out' is missing"),
        ("description: T", "descripton: T", "unknown key 'descripton' (did you mean 'description'?)"),
        ("    after:", "    afer:", "unknown key 'steps.second.afer' (did you mean 'after'?)"),
        ("after: [first]", "after: first", "'steps.second.after': needs a list, got 'first'"),
        ("out: made", "out: '${rwos}'",
         "step 'first', option 'out': there is no variable 'rwos' (did you mean 'rows'?)"),
    ],
)  # fmt: skip
def test_mistakes_in_a_recipe_are_named(old: str, new: str, expected: str, tmp_path: Path) -> None:
    assert old in TWO_STEPS
    assert expected in problems_of(TWO_STEPS.replace(old, new, 1), tmp_path)


def test_steps_that_need_each_other_are_refused(tmp_path: Path) -> None:
    text = TWO_STEPS.replace("source: testbed-reason,", 'source: testbed-reason, system: "${steps.second.out}",')
    assert problems_of(text, tmp_path) == ["steps need each other in a circle: first -> second -> first"]


def test_all_problems_are_shown_at_once(cli: Cli) -> None:
    write(TWO_STEPS.replace("after: [first]", "after: [fist]").replace('seed: "${seed}"', "sed: 1"))
    done = cli("run", "recipe.yaml", "--set", "rows=0", "--set", "steps.third.x=1", "--set", "colour=red")
    assert done.code == 2
    assert "error: 6 problems:" in done.err
    assert "the recipe has no variable 'colour'; it has rows, seed" in done.err
    assert "--set steps.third: there is no step 'third'" in done.err
    assert "option --num-samples: must be at least 1, got 0" in done.err
    assert "where: recipe.yaml" in done.err
    assert not Path("made").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run"], "name a recipe"),
        (["run", "testbde"], r"there is no recipe 'testbde'.*did you mean 'testbed'"),
        (["run", "paper-qwen2.5-7b"], r"there is no recipe 'paper-qwen2.5-7b'.*did you mean 'paper'"),
        (["run", "recipe.yaml", "--only", "frist"], r"there is no step 'frist' \(did you mean 'first'\?\)"),
        (["run", "recipe.yaml", "--start-at", "x"], "there is no step 'x'"),
        (["run", "."], "'.' is a directory, where a recipe is needed"),
        (["run", "empty.yaml"], "a recipe holds 'key: value' lines; this one is empty"),
        (["run", "broken.yaml"], "not valid YAML"),
    ],
)
def test_what_cannot_be_run_is_refused(arguments: Sequence[str], expected: str, cli: Cli) -> None:
    write(TWO_STEPS)
    write("", "empty.yaml")
    write("a: [", "broken.yaml")
    done = cli(*arguments)
    assert done.code == 2
    assert re.search(expected, done.err), done.err
    assert "Traceback" not in done.err


def test_it_is_one_process(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    write(TWO_STEPS)
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "x",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    done = cli("run", "recipe.yaml")
    assert done.code == 2
    assert "starts the processes of each step itself" in done.err


def test_recipes_are_listed_and_shown(cli: Cli) -> None:
    listed = cli("run", "--list")
    assert listed.code == 0
    assert all(name in listed.out for name in shipped_names())
    shown = cli("run", "testbed", "--show")
    write(shown.out, "mine.yaml")
    again = cli("run", "mine.yaml", "--dry-run", "--out", "x")
    assert (again.code, again.out.partition("\n")[2]) == (
        0,
        cli("run", "testbed", "--dry-run", "--out", "x").out.partition("\n")[2],
    )


# --- Running -----------------------------------------------------------------------------------------------------


def test_a_chain_runs_goes_on_and_is_up_to_date(cli: Cli) -> None:
    name = write(TWO_STEPS)
    # A step that fails: its data does not exist yet.
    failing = write(TWO_STEPS.replace("testbed-assist", "late.jsonl"), "failing.yaml")
    first = cli("run", failing)
    assert first.code == 2
    assert "step 'second' (2 of 2) ended with exit code 2; the 1 before it is done" in first.err
    made = read_manifest(Path("made/first"))
    assert made.command == [
        "ogpsa",
        "prepare-data",
        "testbed-reason",
        "--num-samples",
        "5",
        "--seed",
        "1",
        "--out",
        "made/first",
    ]
    before = cli("run", name, "--dry-run").out
    assert re.search(r"first .* up to date\n", before)
    assert re.search(r"second .* to do\n", before)
    second = cli("run", name)
    assert second.code == 0
    assert re.search(r"first +up to date .*\nsecond +made ", second.out)
    assert read_manifest(Path("made/first")) == made
    assert cli("run", name, "--dry-run").out.count("up to date") == 2
    changed = cli("run", name, "--dry-run", "--set", "seed=2").out
    assert re.search(r"first .* other settings: seed\n", changed)
    refused = cli("run", name, "--set", "seed=2")
    assert refused.code == 3
    assert "step 'first' (1 of 2) ended with exit code 3\n" in refused.err
    anew = cli("run", name, "--set", "seed=2", "--overwrite", "--only", "first")
    assert anew.code == 0
    assert read_manifest(Path("made/first")).config["seed"] == 2


class FakeCommands:
    """Stands for ``python -m ogpsa_cli``: what each step does is a line of shell."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from ogpsa_cli.launch import processes

        real = processes.start_alone
        self.texts: list[str] = []
        self.started: list[Sequence[str]] = []

        def start(command: Sequence[str], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
            self.started.append(command)
            return real([sys.executable, "-c", self.texts[len(self.started) - 1]], variables)

        monkeypatch.setattr(processes, "start_alone", start)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCommands:
    return FakeCommands(monkeypatch)


WAIT = """
import os, signal, sys, time
signal.signal(signal.{name}, lambda *_: sys.exit({code}))
open("ready", "w").close()
time.sleep(3600)
"""


def signalled(texts: list[str], number: int, fake: FakeCommands, where: Path) -> int:
    """The exit code of a chain of such steps when a signal comes while the first of them runs."""
    fake.texts = texts
    sender = subprocess.Popen(
        [sys.executable, "-c", f"""
import os, time
while not os.path.exists({str(where / 'ready')!r}): time.sleep(0.02)
os.kill({os.getpid()}, {number})
"""],
    )  # fmt: skip
    os.chdir(where)
    runner = StepRunner()
    try:
        with runner.listening():
            for _ in texts:
                code = runner.run(["anything"])
                if code:
                    return code
        return 0
    finally:
        sender.wait()


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [("SIGTERM", 75, 75), ("SIGUSR1", 75, 75), ("SIGINT", 130, 130), ("SIGUSR1", 4, 4)],
)
def test_signals_reach_the_step_and_its_code_comes_back(
    name: str, code: int, expected: int, fake: FakeCommands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert signalled([WAIT.format(name=name, code=code), "1"], getattr(signal, name), fake, tmp_path) == expected
    assert len(fake.started) == 1


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_a_step_that_ends_by_the_signal_itself_is_resumable(
    number: int, fake: FakeCommands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL); open('ready', 'w').close(); time.sleep(999)"
    )
    assert signalled([text, "1"], number, fake, tmp_path) == 75


def test_no_further_step_starts_after_a_signal(
    fake: FakeCommands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # The step finishes its work all the same.
    text = """
import signal, time; received = []
signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
open("ready", "w").close()
while not received: time.sleep(0.02)
"""
    assert signalled([text, "1"], signal.SIGTERM, fake, tmp_path) == 75
    assert len(fake.started) == 1


def test_the_threads_of_a_recipe_reach_its_steps(cli: Cli, fake: FakeCommands, tmp_path: Path) -> None:
    fake.texts = ["import os; open('threads', 'w').write(os.environ['OMP_NUM_THREADS']); raise SystemExit(4)"]
    assert cli("run", write(TWO_STEPS.replace("out: made", "out: made\nthreads: 3"))).code == 4
    assert (tmp_path / "threads").read_text() == "3"


def test_a_directory_does_not_hide_the_recipe_of_its_name(cli: Cli) -> None:
    # ogpsa quickstart writes to a directory that is called like its recipe.
    Path("quickstart").mkdir()
    done = cli("run", "quickstart", "--dry-run")
    assert done.code == 0
    assert "ogpsa testbed --out runs/quickstart/model" in done.out


def test_a_killed_step_is_a_failure(fake: FakeCommands) -> None:
    fake.texts = ["import os; os.kill(os.getpid(), 9)"]
    runner = StepRunner()
    with runner.listening():
        assert runner.run(["anything"]) == 137


# A step that has its chain signalled when it comes to its work, and does none until the signal has come back to it.
CHAIN = """
import sys
from ogpsa_cli import __main__
from ogpsa_cli.launch import processes
from tests.faults.points import Point, command
start, point = processes.start_alone, Point("pipelines.preparing.rows:ordered_map", to="launcher")
processes.start_alone = lambda words: start([sys.executable, *command([point], "mark", *words[3:])])
__main__.main()
"""


def test_the_real_process_passes_75_through(tmp_path: Path) -> None:
    """The whole command, signalled while a step prepares data."""
    (tmp_path / "recipe.yaml").write_text(TWO_STEPS)
    process = subprocess.run(
        [sys.executable, "-c", CHAIN, "run", "recipe.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    said, _, rest = process.stderr.partition("\n")
    assert "[1/2] first (prepare-data)" in said
    assert process.returncode == 75
    assert "stopped in step 'first' (1 of 2); the same command goes on from there" in rest
    assert not (tmp_path / "made" / "data").exists()
