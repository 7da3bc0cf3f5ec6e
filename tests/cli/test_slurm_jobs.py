"""ogpsa slurm: what the written scripts ask Slurm for, their quoting, and profiles that cannot be used."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from ogpsa_cli import __file__ as package
from pipelines.configs.run import RunConfig
from pipelines.recipes.chain import load_chain
from pipelines.recipes.recipe import shipped_names
from tests.cli.conftest import Cli, Outcome

EXAMPLES = Path(package).resolve().parents[1] / "examples" / "slurm"
RECIPE = """\
description: A chain.
out: runs/x
variables: {model: M}
steps:
  data: {command: prepare-data, options: {source: testbed-reason}}
  basis: {command: build-basis, options: {model: "${model}", reference: ["${steps.data.out}"], zero: 3}}
  sft:
    command: train-sft
    purpose: |
      one line
      and another
    options: {model: "${model}", data: "${steps.data.out}", basis: "${steps.basis.out}"}
  measured:
    command: evaluate
    options: {model: "${steps.sft.out}", suite: testbed, name: "it's $(whoami) `id` \\"x\\""}
"""
PROFILE = """\
partition: gpu
account: proj-1
time: 24:00:00
nodes: 2
gpus-per-node: 8
cpus-per-task: 6
memory: "0"
setup: ["module load cuda", ". env/bin/activate"]
environment: {HF_HUB_OFFLINE: 1, NAME: "a 'b' $c"}
sbatch: ["--constraint=h100"]
srun: ["--cpu-bind=none"]
steps:
  prepare-data: {partition: cpu, memory: 8G, time: 1:00:00, sbatch: []}
  sft: {time: 2-00:00:00, nodes: 4}
"""


def slurm(cli: Cli, *options: str, recipe: str = RECIPE, profile: str = PROFILE) -> Outcome:
    Path("recipe.yaml").write_text(recipe)
    Path("cluster.yaml").write_text(profile)
    return cli("slurm", "recipe.yaml", "--profile", "cluster.yaml", *options)


def directives(name: str) -> list[str]:
    text = Path(f"runs/x/jobs/{name}.sbatch").read_text()
    return re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("profile", "options", "says"),
    [
        (PROFILE, ["--set", "steps.sft.trainer.hub_token=swordfish"], "step 'sft' has a token"),
        (PROFILE.replace("NAME:", "HF_TOKEN: swordfish, NAME:"), [], "environment.HF_TOKEN has a token"),
        (PROFILE.replace("module load cuda", "export WANDB_API_KEY=swordfish"), [], "setup line 1 has a token"),
    ],
)
def test_no_script_holds_a_token(cli: Cli, profile: str, options: list[str], says: str) -> None:
    done = slurm(cli, *options, profile=profile)
    assert done.code == 2
    assert says in done.err
    assert "export it before submitting" in done.err
    assert not Path("runs").exists()


def test_a_token_may_be_read_when_the_job_runs(cli: Cli) -> None:
    done = slurm(cli, profile=PROFILE.replace("module load cuda", "export HF_TOKEN=$(cat ~/token)"))
    assert done.code == 0, done.err


def test_jobs_ask_for_what_the_profile_says(cli: Cli, tmp_path: Path) -> None:
    done = slurm(cli)
    assert done.code == 0, done.err
    common = ["--open-mode=append", "--partition=gpu", "--account=proj-1"]
    ends = ["--signal=B:USR1@120", "--requeue", "--constraint=h100"]
    logs = tmp_path / "runs" / "x" / "logs"
    assert directives("basis") == [
        "--job-name=basis-recipe", f"--output={logs}/basis-%j.out", *common, "--time=24:00:00", "--nodes=2",
        "--ntasks-per-node=8", "--gpus-per-node=8", "--cpus-per-task=6", "--mem=0", *ends,
    ]  # fmt: skip
    sft = directives("sft")
    assert {"--time=2-00:00:00", "--nodes=4", "--ntasks-per-node=8"} <= set(sft)
    assert directives("data") == [
        "--job-name=data-recipe", f"--output={logs}/data-%j.out", "--open-mode=append", "--partition=cpu",
        "--account=proj-1", "--time=1:00:00", "--nodes=1", "--ntasks-per-node=1", "--cpus-per-task=6", "--mem=8G",
        "--signal=B:USR1@120", "--requeue",
    ]  # fmt: skip


def test_the_threads_of_a_recipe_are_those_of_its_jobs(cli: Cli) -> None:
    assert slurm(cli).code == 0
    assert "export OMP_NUM_THREADS=6\n" in Path("runs/x/jobs/sft.sbatch").read_text()
    assert slurm(cli, "--overwrite", recipe=RECIPE.replace("out: runs/x", "out: runs/x\nthreads: 1")).code == 0
    assert "export OMP_NUM_THREADS=1\n" in Path("runs/x/jobs/sft.sbatch").read_text()


def test_commands_arrive_word_for_word(cli: Cli) -> None:
    """The script, run with programs that print their arguments in place of srun."""
    assert slurm(cli).code == 0
    plan = cli("run", "recipe.yaml", "--dry-run").out.splitlines()
    folder = Path.cwd() / "bin"
    folder.mkdir()
    for name in ("srun", "ogpsa", "module"):
        (folder / name).write_text('#!/bin/sh\n[ "${0##*/}" != srun ] || printf "%s\\n" "$NAME|$HF_HUB_OFFLINE" "$@"\n')
        (folder / name).chmod(0o755)
    Path("env/bin").mkdir(parents=True)
    Path("env/bin/activate").write_text("")
    env = {"PATH": f"{folder}:{os.environ['PATH']}"}
    places = {"data": (1, 1), "basis": (2, 8), "sft": (4, 8), "measured": (2, 8)}
    for (step, (nodes, tasks)), typed in zip(places.items(), plan[-4:], strict=True):
        script = f"runs/x/jobs/{step}.sbatch"
        printed = subprocess.run(["bash", script], env=env, capture_output=True, text=True, check=True).stdout
        variables, *words = printed.splitlines()
        assert variables == "a 'b' $c|1"
        assert words[words.index("ogpsa") :] == shlex.split(typed)
        assert words[: words.index("ogpsa")] == [
            "--kill-on-bad-exit=1", f"--nodes={nodes}", f"--ntasks-per-node={tasks}", "--cpus-per-task=6",
            "--cpu-bind=none",
        ]  # fmt: skip


SBATCH = """#!/bin/sh
n=$(cat count 2>/dev/null || echo 100); n=$((n + 1)); echo $n > count
echo "$@" >> calls
[ "$n" != "$REFUSED" ] || { echo "sbatch: error: no such partition" >&2; exit 1; }
echo "$n;cluster"
"""


@pytest.fixture
def fake_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """sbatch and scancel that write down what they are asked; the directory in which submit.sh runs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(SBATCH)
    (folder / "scancel").write_text('#!/bin/sh\necho scancel "$@" >> calls\n')
    for program in folder.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path / "runs" / "x" / "jobs"


def test_submitting_prints_ids_and_chains_jobs(cli: Cli, fake_slurm: Path) -> None:
    done = slurm(cli, "--submit")
    assert done.code == 0, done.err
    assert re.findall(r"^  (\w+) +job (\d+)$", done.out, re.MULTILINE) == [
        ("data", "101"), ("basis", "102"), ("sft", "103"), ("measured", "104"),
    ]  # fmt: skip
    after = "--parsable --dependency=afterok:{} --kill-on-invalid-dep=yes {}.sbatch"
    assert (fake_slurm / "calls").read_text().splitlines() == [
        "--parsable data.sbatch", after.format("101", "basis"), after.format("101:102", "sft"),
        after.format("103", "measured"),
    ]  # fmt: skip
    assert Path("runs/x/logs").is_dir()


def test_a_refused_job_cancels_those_before_it(cli: Cli, fake_slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSED", "103")
    done = slurm(cli, "--submit")
    assert done.code == 2
    assert "Slurm refuses a job, and what was submitted of the chain is cancelled: sbatch: error: no such" in done.err
    words = (fake_slurm / "calls").read_text().splitlines()[-1].split()
    assert (words[0], set(words[1:])) == ("scancel", {"101", "102"})


def test_a_second_time_it_is_up_to_date_and_other_settings_are_refused(cli: Cli) -> None:
    assert slurm(cli).code == 0
    assert "up to date: runs/x/jobs" in slurm(cli).out
    changed = slurm(cli, profile=PROFILE.replace("nodes: 2", "nodes: 3"))
    assert (changed.code, "made with other settings: profile" in changed.err) == (3, True)
    assert slurm(cli, "--overwrite", profile=PROFILE.replace("nodes: 2", "nodes: 3")).code == 0
    assert "--nodes=3" in directives("basis")
    assert slurm(cli, "--jobs", "elsewhere").code == 0
    assert Path("elsewhere/submit.sh").is_file()


def test_the_plan_shows_the_jobs(cli: Cli) -> None:
    done = slurm(cli, "--dry-run")
    assert done.code == 0
    assert "#   sft       train-sft: 4 x 8 tasks, 8 GPUs per node, 2-00:00:00, after data, basis" in done.out
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("time: 24:00:00\n", "", "'time' is missing"),
        ("time: 24:00:00", "time: tomorrow", "'time': needs a time such as '24:00:00'"),
        ("time: 24:00:00", "time: 60", "'time': needs text, got 60"),
        ("nodes: 2", "nodes: 0", "'nodes': must be at least 1, got 0"),
        ("gpus-per-node", "gpu-per-node", r"unknown key 'gpu-per-node' \(did you mean 'gpus-per-node'\?\)"),
        ("  sft: {time", "  sft: {tim", r"unknown key 'steps.sft.tim' \(did you mean 'time'\?\)"),
        ("  sft:", "  stf:", r"steps.stf: the recipe has no step and no command 'stf' \(did you mean 'sft'\?\)"),
        ('memory: "0"', "memory: much", "'memory': needs a size such as '200G'"),
        ("partition: gpu\n", "partition: 'gpu; rm'\n", "'partition': needs one word, got 'gpu; rm'"),
        ("--constraint=h100", "constraint=h100", "'sbatch': needs options such as '--constraint=h100'"),
        ("HF_HUB_OFFLINE: 1", "HF-HUB: 1", "'HF-HUB' is no name of a variable"),
        ("HF_HUB_OFFLINE: 1", "HF_HUB_OFFLINE: true", "HF_HUB_OFFLINE needs text or a number, got True"),
        ("setup: [", "setup: ][", "not valid YAML"),
        ("account: proj-1", "requeue: false\nsignal-before: 60", "signal-before needs requeue: true"),
    ],
)
def test_mistakes_in_a_profile_are_named(old: str, new: str, expected: str, cli: Cli) -> None:
    assert old in PROFILE
    done = slurm(cli, profile=PROFILE.replace(old, new, 1))
    assert done.code == 2
    assert re.search(expected, done.err), done.err
    assert "Traceback" not in done.err
    assert not Path("runs").exists()


def test_problems_of_recipe_and_profile_are_shown_together(cli: Cli) -> None:
    done = slurm(cli, recipe=RECIPE.replace("zero: 3", "zero: 4"), profile=PROFILE.replace("nodes: 2", "nods: 2"))
    assert done.code == 2
    assert "step 'basis': option --zero: must be 0, 1, 2 or 3, got 4 (recipe.yaml)" in done.err
    assert "unknown key 'nods' (did you mean 'nodes'?) (cluster.yaml)" in done.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["recipe.yaml"], "--profile is required"),
        (["recipe.yaml", "--profile", "none.yaml"], "the cluster profile 'none.yaml' does not exist"),
        (["none.yaml", "--profile", "cluster.yaml"], "there is no recipe 'none.yaml'"),
        (["recipe.yaml", "--profile", "cluster.yaml", "--directory", "none"], "none' for the jobs does not exist"),
        (["recipe.yaml", "--profile", "cluster.yaml", "--out", 'a"b'], "Slurm cannot take the path"),
        (["recipe.yaml", "--profile", "cluster.yaml", "--set", "steps.sft.num-procs=4"], "step 'sft' gives num-procs"),
    ],
)
def test_what_cannot_be_written_is_refused(arguments: Sequence[str], expected: str, cli: Cli) -> None:
    Path("recipe.yaml").write_text(RECIPE)
    Path("cluster.yaml").write_text(PROFILE)
    done = cli("slurm", *arguments)
    assert done.code == 2
    assert expected in done.err
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["cluster.yaml", "recipe.yaml"]


def test_without_slurm_nothing_is_submitted(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    done = slurm(cli, "--submit")
    assert done.code == 2
    assert "there is no sbatch on this machine" in done.err
    assert not Path("runs").exists()


# --- The trap ----------------------------------------------------------------------------------------------------

SRUN = """#!/usr/bin/env python3
import os, signal, sys, time
def leave(*_):
    time.sleep(0.3)
    os.write(1, b"saved\\n")
    sys.exit(int(os.environ["CODE"]))
if os.environ["CODE"] != "138":
    signal.signal(signal.SIGUSR1, leave)
open("running", "w").close()
# A signal between the last instruction and one long sleep would be heard when that sleep ends.
end = time.monotonic() + float(os.environ["SECONDS_TO_RUN"])
while time.monotonic() < end:
    time.sleep(0.05)
sys.exit(int(os.environ["CODE_AT_END"]))
"""


@pytest.mark.parametrize(
    ("signals", "code", "expected", "requeued"),
    [
        (1, 75, 75, True),
        (3, 75, 75, True),
        (1, 138, 138, True),
        (1, 4, 4, False),
        (0, 0, 0, False),
        (0, 139, 139, False),
    ],
)
@pytest.mark.parametrize("written", ["by ogpsa", "by hand"])
def test_the_script_hands_signals_on_and_requeues(
    written: str, signals: int, code: int, expected: int, requeued: bool, cli: Cli, tmp_path: Path
) -> None:
    assert slurm(cli, profile="time: 5\n").code == 2  # a number is no text
    assert slurm(cli, profile="time: '5'\n").code == 0
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "srun").write_text(SRUN)
    (folder / "ogpsa").write_text("")
    (folder / "scontrol").write_text('#!/bin/sh\necho "$@" > requeued\nexit 1\n')
    for program in folder.iterdir():
        program.chmod(0o755)
    env = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}", "CODE": str(code), "SLURM_JOB_ID": "7", "SETUP": "", "CPUS": "1",
        "SECONDS_TO_RUN": "3600" if signals else "0", "CODE_AT_END": str(code), "JOBS": str(EXAMPLES), "MODEL": "M",
        "OUT": "o", "ZERO": "2", "SFT_OPTIONS": "",
    }  # fmt: skip
    script = Path("runs/x/jobs/sft.sbatch") if written == "by ogpsa" else EXAMPLES / "train-sft.sbatch"
    process = subprocess.Popen(["bash", script], env=env, stdout=subprocess.PIPE, text=True)
    # One that has nothing to wait for may be over before it is looked at again.
    while process.poll() is None and not Path("running").exists():
        time.sleep(0.005)
    assert Path("running").exists()
    for _ in range(signals):
        process.send_signal(10)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == expected
    assert Path("requeued").exists() == requeued
    if requeued:
        assert Path("requeued").read_text() == "requeue 7\n"
    if signals and code == 75:
        assert out.startswith("saved\n")


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_examples_are_valid_shell(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)


def test_one_process_is_one_task_with_one_gpu(cli: Cli) -> None:
    assert slurm(cli, "--set", "steps.sft.num-procs=1").code == 0
    assert {"--nodes=4", "--ntasks-per-node=1", "--gpus-per-node=1"} <= set(directives("sft"))


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_recipes_become_jobs(name: str, cli: Cli) -> None:
    Path("cluster.yaml").write_text("time: 24:00:00\ngpus-per-node: 4\n")
    done = cli("slurm", name, "--profile", "cluster.yaml")
    assert done.code == 0, done.err
    scripts = list(Path("runs", name, "jobs").glob("*.s*"))
    assert len(scripts) == len(load_chain(RunConfig(recipe=name)).steps) + 1
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)
