"""The texts of sbatch scripts: one job for each step, and the script that submits them with their dependencies."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_registry.core.errors import ConfigError, Preempted
from pipelines.recipes.chain import Step
from pipelines.recipes.cluster import Cluster, Resources, resources_of, tasks_per_node

SUBMIT = "submit.sh"

_RUN = """\
# Slurm signals this script alone some time before the limit; srun hands it on, all tasks save and exit with {saved}.
job= signalled= interrupted=
trap 'signalled=1 interrupted=1; [ -z "$job" ] || kill -USR1 "$job"' USR1

{setup}if ! command -v ogpsa > /dev/null; then
    echo "ogpsa is not on PATH: activate its environment under 'setup:' of the cluster profile" >&2
    exit 127
fi
set +e
code={saved}
if [ -z "$signalled" ]; then
    {command} &
    job=$!
    # One that came before this line was handed on to nobody.
    [ -z "$signalled" ] || kill -USR1 "$job"
    while true; do
        interrupted=
        wait "$job"
        code=$?
        # The signal interrupts wait, while the tasks are still saving.
        [ -n "$interrupted" ] || break
    done
fi
"""
_REQUEUE = """\
# {saved}: saved and resumable. Above 128 after the signal: ended before it could answer; nothing half-written is left.
if [ "$code" -eq {saved} ] || {{ [ -n "$signalled" ] && [ "$code" -gt 128 ]; }}; then
    echo "stopped with exit code $code, back into the queue"
    # Slurm ends this script when it takes the job back.
    scontrol requeue "$SLURM_JOB_ID" && sleep 60
fi
"""


def job_script(
    title: str, step: Step, cluster: Cluster, *, directory: Path, logs: Path, threads: int | None = None
) -> str:
    """The sbatch script of one step.

    Args:
        title: the recipe's name.
        step: the step to run.
        cluster: the profile that says how jobs are started on the cluster.
        directory: the absolute path of the directory in which the command runs.
        logs: the absolute path of the directory for its output.
        threads: the number of threads of each task, if the recipe gives it; None leaves it to the profile.

    Raises:
        ConfigError: Slurm cannot take one of the paths.
    """
    resources = resources_of(cluster, step)
    tasks = tasks_per_node(resources)
    lines = [
        "#!/bin/bash",
        f"# Step '{step.name}' ({step.command}) of the recipe '{_one_line(title)}': {_one_line(step.purpose)}",
        f"# {SUBMIT} submits the chain. The same step again goes on where it stopped, or says 'up to date'.",
        *(f"#SBATCH {line}" for line in _directives(title, step, cluster, resources, tasks, logs)),
        "set -e -o pipefail",
        f"cd -- {shlex.quote(str(directory))}",
    ]
    setup = "".join(f"{line}\n" for line in [*_exports(cluster, resources, threads), *cluster.setup])
    command = shlex.join([*_srun(resources, tasks), "ogpsa", *step.arguments])
    text = _RUN.format(setup=setup, command=command, saved=Preempted.exit_code)
    if cluster.requeue:
        text += _REQUEUE.format(saved=Preempted.exit_code)
    return "\n".join(lines) + "\n" + text + 'exit "$code"\n'


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _directives(
    title: str, step: Step, cluster: Cluster, resources: Resources, tasks: int, logs: Path
) -> Iterator[str]:
    yield f"--job-name={step.name}-{re.sub(r'[^A-Za-z0-9_.-]', '-', title)}"
    yield f"--output={_path(logs / step.name)}"
    yield "--open-mode=append"
    for name in ("partition", "account", "qos"):
        value = getattr(resources, name)
        if value is not None:
            yield f"--{name}={value}"
    yield f"--time={resources.time}"
    yield f"--nodes={resources.nodes or 1}"
    yield f"--ntasks-per-node={tasks}"
    if resources.gpus_per_node:
        yield f"--gpus-per-node={resources.gpus_per_node}"
    if resources.cpus_per_task is not None:
        yield f"--cpus-per-task={resources.cpus_per_task}"
    if resources.memory is not None:
        yield f"--mem={resources.memory}"
    if cluster.requeue:
        yield f"--signal=B:USR1@{cluster.signal_before}"
        yield "--requeue"
    else:
        yield "--no-requeue"
    yield from resources.sbatch or ()


def _path(stem: Path) -> str:
    """The name of a log file, escaped for sbatch, to which % starts a placeholder and spaces need quotes."""
    text = str(stem)
    if any(character in text for character in "\"'\\\n"):
        raise ConfigError(f"Slurm cannot take the path '{text}': it has a quote, a backslash or a line break")
    text = text.replace("%", "%%") + "-%j.out"
    return text if re.fullmatch(r"[\w./:=@%+,-]+", text) else f'"{text}"'


def _exports(cluster: Cluster, resources: Resources, threads: int | None) -> list[str]:
    variables = dict(cluster.environment)
    if threads is not None:
        variables["OMP_NUM_THREADS"] = str(threads)
    elif resources.cpus_per_task is not None:
        variables.setdefault("OMP_NUM_THREADS", str(resources.cpus_per_task))
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def _srun(resources: Resources, tasks: int) -> list[str]:
    words = ["srun", "--kill-on-bad-exit=1", f"--nodes={resources.nodes or 1}", f"--ntasks-per-node={tasks}"]
    if resources.cpus_per_task is not None:
        # Since Slurm 22.05 steps no longer inherit this option from the job.
        words.append(f"--cpus-per-task={resources.cpus_per_task}")
    return [*words, *(resources.srun or ())]


def submit_script(title: str, steps: Sequence[Step], *, logs: Path) -> str:
    """The script that submits all jobs, each after those that it needs; it prints a step and its job in each line.

    Args:
        title: the recipe's name.
        steps: the steps in order.
        logs: the directory that the script makes for the output of the jobs.
    """
    calls = "\n".join(" ".join(["submit", step.name, *step.needs]) for step in steps)
    return f"""\
#!/bin/bash
# Submits the jobs of the recipe '{_one_line(title)}', each after those that it needs; when one fails, those that wait
# for it are cancelled. Prints a step and its job in each line. Arguments are handed on to sbatch.
set -eu
cd -- "$(dirname -- "$0")"
mkdir -p -- {shlex.quote(str(logs))}
declare -A id=()
# All or nothing: half a chain would leave jobs that nobody expects.
undo() {{ # EXIT CODE
    if [ "$1" -ne 0 ] && [ ${{#id[@]}} -gt 0 ]; then scancel "${{id[@]}}"; fi
}}
trap 'undo $?' EXIT

options=("$@")
submit() {{ # STEP [STEP THAT IT NEEDS]...
    local step=$1 after="" needed answer
    shift
    for needed in "$@"; do after+=":${{id[$needed]}}"; done
    answer=$(sbatch --parsable ${{after:+--dependency=afterok$after --kill-on-invalid-dep=yes}} \\
        ${{options[@]+"${{options[@]}}"}} "$step.sbatch")
    id[$step]=${{answer%%;*}}
    echo "$step ${{id[$step]}}"
}}

{calls}
"""
