"""The textual part of the record: what commands print, and the job scripts that they write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pipelines.configs import commands
from tests.golden import chain
from tests.golden.normalising import digest, normal, without_figures
from tests.golden.workspace import ROOT, Answer, Workspace

COMMANDS = tuple(command.name for command in commands.COMMANDS)
RECIPES = ("testbed", "lora-24gb", "paper")
_PROFILE = """\
partition: gpu
account: project
time: 24:00:00
nodes: 2
gpus-per-node: 4
cpus-per-task: 6
memory: "0"
setup: ["module load cuda", ". env/bin/activate"]
environment: {HF_HUB_OFFLINE: 1}
sbatch: ["--constraint=h100"]
srun: ["--cpu-bind=none"]
steps:
  prepare-data: {partition: cpu, memory: 8G, time: 1:00:00, sbatch: []}
  sft: {time: 2-00:00:00, nodes: 4}
"""
_SFT = "train-sft model --data data/safety --out new"
_PLANS = {
    "prepare-data": "prepare-data testbed-reason --num-samples 8 --tokenizer model --max-length 32 --out new",
    "build-basis": "build-basis model --reference data/assist --reference data/reason --zero 3 --num-procs 2 --out new",
    "build-mask": "build-mask model --score random --exclude *embed* --ratio 0.1 --out new",
    "score-tokens": "score-tokens model --data data/pairs --rule logprob --side chosen --map top --top 0.2 --out new",
    "train-sft": f"{_SFT} --basis bases/sft",
    "train-sft-naive": f"{_SFT} --packing --replay data/reason --replay-ratio 0.25 --eval-split 0.2 --select best",
    "train-sft-lora": f"{_SFT} --lora-rank 4 --precision fp32 --report-to tensorboard",
    "train-npo": "train-npo model --data data/pairs --loss simnpo --gamma 0.5 --retain-weight 1 --zero 2 --out new",
    "train-dpo": "train-dpo model --data data/pairs --basis bases/sft --space update --zero 2 --offload --out new",
    "evaluate": "evaluate model --suite testbed --suite reference-loss --data data/reason --out new",
    "judge": "judge answers.jsonl --set labels.answer=full_compliance --out new",
    "sample": "sample model --data data/reason --num-samples 4 --log-probs 4 --out new",
    "report": "report results --start start --out new",
    "merge": "merge runs/lora-task --safe runs/lora --base model --aligned runs/lora-task --unaligned model --out new",
    "merge-linear": "merge runs/lora-task --safe runs/lora --method linear --output model --out new",
    "run": "run testbed --out new",
    "slurm": "slurm testbed --profile cluster.yaml --out new",
    "quickstart": "quickstart --out new",
    "testbed": "testbed --out new",
}
_LISTINGS = {
    "prepare-data-list": "prepare-data --list",
    "prepare-data-describe": "prepare-data saferlhf --describe",
    "prepare-data-preview": "prepare-data testbed-reason --num-samples 2 --tokenizer model --preview 2 --out preview",
    "run-list": "run --list",
    "judge": "judge answers.jsonl --set labels.answer=full_compliance --out judged --verbose",
    "inspect-data": "inspect data/safety",
    "inspect-basis": "inspect bases/sft",
    "inspect-run": "inspect runs/lora",
}
_MISTAKES = {
    "command": "train",
    "option": f"{_SFT} --bassis bases/sft",
    "required": "train-sft model --out new",
    "value": f"{_SFT} --space both",
    "set": f"{_SFT} --set trainer.no_such_option=1",
    "data": "train-sft model --data data/none --out new",
    "model": "build-basis no/model --reference data/assist --out new",
    "kind": "train-dpo model --data data/safety --out new",
    "basis": f"{_SFT} --lora-rank 4 --basis bases/sft --precision fp32",
    "contradiction": f"{_SFT} --offload",
    "several": f"{_SFT} --offload --strength 2 --replay data/reason",
    "other-settings": "prepare-data testbed-reason --num-samples 3 --out data/reason",
    "entry": "prepare-data testbed-raeson --out new",
    "suite": "evaluate model --suite testbeds --out new",
    "recipe": "run testbeds",
    "variable": "run testbed --set sft-step=3",
    "profile": "slurm testbed --profile none.yaml",
    "artifact": "inspect nothing",
    "merge": "merge runs/lora-task --base model --out new",
}
# Stand-ins for Slurm, which say what they were asked for.
_STAND_INS = {
    "sbatch": '#!/bin/bash\necho "sbatch $*" >> calls\nwc -l < calls\n',
    "srun": '#!/bin/bash\necho "srun $*"\n',
}
_EXAMPLE_SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    "cpus": {"GPUS": "0", "TASKS": "2", "NODES": "2", "ZERO": "3", "MODEL": "model", "SFT_OPTIONS": "--max-steps 5"},
}


def _screen(answer: Answer, space: Workspace) -> str:
    parts = [f"$ ogpsa {' '.join(answer.argv)}", answer.out.rstrip()]
    # Noise of libraries (progress bars, compiling) comes or not with the machine: judged once it is out.
    if error := normal(answer.err, space.path).strip():
        parts += ["[standard error]", error]
    return normal("\n".join([*parts, f"[exit code {answer.code}]"]), space.path) + "\n"


def _screens(space: Workspace, lines: Mapping[str, str]) -> dict[str, str]:
    return {name: _screen(answer, space) for name, answer in space.ogpsa(lines).items()}


def helps(space: Workspace) -> dict[str, str]:
    """Help of the tool and of every command."""
    levels = {name: f"{name} --help-all" for name in COMMANDS} | {
        f"{name}-common": f"{name} --help" for name in COMMANDS
    }
    return _screens(space, {"ogpsa": "--help", **levels})


def schemas(space: Workspace) -> dict[str, str]:
    """The JSON schema of every command, one option a line."""
    answers = space.ogpsa({name: f"{name} --json-schema" for name in COMMANDS}, must_succeed=True)
    return {name: _schema(json.loads(answer.out)) for name, answer in answers.items()}


def _schema(schema: dict[str, object]) -> str:
    lines = []
    for key, value in schema.items():
        if isinstance(value, dict):
            lines += [f"{key}.{name}: {json.dumps(_brief(entry))}" for name, entry in value.items()]
        else:
            lines.append(f"{key}: {json.dumps(value)}")
    return "\n".join([*lines, f"whole: {digest(json.dumps(schema))}"]) + "\n"


def _brief(entry: object) -> object:
    """An entry without its words and its place on the page, which help has too."""
    left_out = ("title", "description", "panel", "positional", "short")
    return {key: value for key, value in entry.items() if key not in left_out} if isinstance(entry, dict) else entry


def plans(space: Workspace) -> dict[str, str]:
    """Dry runs and listings, and what is printed about mistakes; all on the same small inputs."""
    space.ogpsa(chain.INPUTS, must_succeed=True)
    chain.write_answers(space.path)
    (space.path / "cluster.yaml").write_text(_PROFILE)
    lines = {f"plan-{name}": f"{line} --dry-run" for name, line in _PLANS.items()}
    mistakes = {f"mistake-{name}": line for name, line in _MISTAKES.items()}
    screens = _screens(space, lines | _LISTINGS | mistakes)
    return {name: without_figures(text) if name.startswith("inspect") else text for name, text in screens.items()}


def scripts(space: Workspace) -> dict[str, str]:
    """The job scripts of every shipped recipe, and the jobs of the example."""
    (space.path / "cluster.yaml").write_text(_PROFILE)
    texts = _screens(space, {f"slurm-{name}": f"slurm {name} --profile cluster.yaml" for name in RECIPES})
    for recipe in RECIPES:
        jobs = space.path / "runs" / recipe / "jobs"
        written = {path.name: normal(path.read_text(), space.path) for path in sorted(jobs.glob("*.s*"))}
        texts[f"jobs-{recipe}"] = _told_apart(written)
    for name, settings in _EXAMPLE_SETTINGS.items():
        texts[f"example-{name}"] = _example(space, settings)
    return texts


def _told_apart(scripts: dict[str, str]) -> str:
    """The first script, and of the others the lines that it has not, with a digest of all their lines."""
    first = next(iter(scripts.values()))
    known = set(first.splitlines())
    parts = []
    for name, text in scripts.items():
        lines = text.splitlines() if text == first else [line for line in text.splitlines() if line not in known]
        parts += [f"=== {name} {digest(text)}", *lines]
    return "\n".join(parts) + "\n"


def _example(space: Workspace, settings: dict[str, str]) -> str:
    """What the example's scripts would ask Slurm for."""
    programs = space.path / "programs"
    programs.mkdir(exist_ok=True)
    for name, text in _STAND_INS.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    calls = space.path / "calls"
    calls.unlink(missing_ok=True)
    jobs = ROOT / "examples" / "slurm"
    path = f"{programs}:{space.environment()['PATH']}"
    submitted = space.run(["bash", str(jobs / "submit.sh")], PATH=path, OUT="out", **settings)
    lines = [submitted.rstrip(), calls.read_text().rstrip()]
    for job in sorted(jobs.glob("*.sbatch")):
        command = 'export JOBS="$1"; . "$JOBS/settings.sh"; bash "$2"'
        said = space.run(["bash", "-c", command, "-", str(jobs), str(job)], PATH=path, OUT="out", **settings)
        lines += [f"=== {Path(job).name}", said.rstrip()]
    return normal("\n".join(lines), space.path) + "\n"
