"""A chain as Slurm jobs: recipe and profile checked together, scripts written and submitted."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from data_registry.core.errors import ConfigError, InputError
from data_registry.core.manifest import InputRecord, hash_file
from data_registry.core.redaction import hide_arguments
from pipelines.configs.run import SlurmConfig
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.making import Made
from pipelines.recipes.chain import Chain, load_chain
from pipelines.recipes.cluster import Cluster, check_names, read_cluster
from pipelines.recipes.recipe import recipe_path
from pipelines.recipes.sbatch import SUBMIT, job_script, submit_script

KIND = "slurm-jobs"


@dataclass(frozen=True)
class SlurmResult(Made):
    """The directory of the job scripts, and the jobs that were submitted.

    Attributes:
        logs: the directory where the jobs write their logs.
        submitted: pairs of step and job id, in order; empty if the jobs were not submitted.
    """

    logs: Path
    submitted: tuple[tuple[str, str], ...]


def read_chain_and_cluster(config: SlurmConfig) -> tuple[Chain, Cluster]:
    """The chain of the recipe and the cluster profile, both checked.

    Raises:
        InputError: one of them cannot be read.
        ConfigError: one of them is wrong; the error lists the problems of both.
    """
    assert config.profile is not None, "the configuration is checked for it"
    problems: list[str] = []
    try:
        chain = load_chain(config)
    except ConfigError as error:
        problems += [f"{problem} ({error.where})" for problem in error.problems]
    try:
        cluster, _ = read_cluster(config.profile)
    except ConfigError as error:
        problems += [f"{problem} ({error.where})" for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    check_names(cluster, list(chain.steps), where=str(config.profile))
    _refuse_secrets(chain, cluster, where=str(config.profile))
    for step in chain.steps:
        if dict(step.config).get("num_procs") not in (None, 1):
            problems.append(
                f"step '{step.name}' gives num-procs, but under Slurm the profile says how many tasks there are"
            )
    if problems:
        raise ConfigError(problems, fix="take it out of the recipe, or:  --set steps.STEP.num-procs=null")
    return chain, cluster


def _refuse_secrets(chain: Chain, cluster: Cluster, *, where: str) -> None:
    """Refuse tokens and passwords, which would have to stand in the job scripts.

    Raises:
        ConfigError: a step or the profile has one; the error names them all.
    """
    problems = [
        f"step '{step.name}' has a token or password in its options, which its job script would show"
        for step in chain.steps
        if hide_arguments(step.arguments) != step.arguments
    ]
    given = {f"environment.{name}": f"{name}={value}" for name, value in cluster.environment.items()}
    given |= {f"setup line {number}": line for number, line in enumerate(cluster.setup, start=1)}
    problems += [
        f"the profile's {place} has a token or password, which every job script would show"
        for place, text in given.items()
        if hide_arguments([text]) != [text]
    ]
    if problems:
        raise ConfigError(
            problems, where=where, fix="export it before submitting: jobs get the variables of your shell, as HF_TOKEN"
        )


def jobs_directory(config: SlurmConfig) -> Path:
    """The directory in which the jobs start.

    Raises:
        InputError: there is no such directory.
    """
    directory = Path.cwd() if config.directory is None else config.directory.absolute()
    if not directory.is_dir():
        raise InputError(f"the directory '{directory}' for the jobs does not exist")
    return directory


def places(config: SlurmConfig, chain: Chain) -> tuple[Path, Path]:
    """The directory of the scripts and the directory of the logs."""
    directory = jobs_directory(config)
    out = directory / chain.out
    return (out / "jobs" if config.jobs is None else config.jobs.absolute()), out / "logs"


def script_texts(chain: Chain, cluster: Cluster, config: SlurmConfig, logs: Path) -> Iterator[tuple[str, str]]:
    """The scripts, as pairs of file name and text."""
    assert config.directory is not None
    for step in chain.steps:
        text = job_script(chain.title, step, cluster, directory=config.directory, logs=logs, threads=chain.threads)
        yield f"{step.name}.sbatch", text
    yield SUBMIT, submit_script(chain.title, chain.steps, logs=logs)


def jobs_inputs(config: SlurmConfig) -> list[InputRecord]:
    """The input records of the recipe and the cluster profile."""
    files = (("recipe", recipe_path(str(config.recipe))), ("profile", Path(str(config.profile))))
    return [InputRecord(role=role, path=str(path), kind="file", fingerprint=hash_file(path)) for role, path in files]


def write_scripts(writer: ArtifactWriter, chain: Chain, texts: Mapping[str, str]) -> None:
    """Write the scripts as executable files."""
    for name, text in texts.items():
        path = writer.path / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
    writer.summary = {"recipe": chain.title, "jobs": len(chain.steps)}


def submit(target: Path) -> tuple[tuple[str, str], ...]:
    """Submit the chain and return pairs of step and job id, in order.

    Raises:
        InputError: Slurm refuses a job; the jobs that were submitted before it are cancelled.
    """
    done = subprocess.run(["bash", str(target / SUBMIT)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = [line for line in done.stderr.splitlines() if line.strip()]
        said = "; ".join(reason) or "no reason given"
        raise InputError(
            f"Slurm refuses a job, and what was submitted of the chain is cancelled: {said}",
            where=str(target / SUBMIT),
            fix="mend the cluster profile",
        )
    pairs = [line.split() for line in done.stdout.splitlines()]
    return tuple((step, job) for step, job in pairs)
