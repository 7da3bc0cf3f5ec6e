"""A chain as Slurm jobs: recipe and profile checked together, scripts written and submitted."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from data_registry.core.errors import ConfigError, InputError
from data_registry.core.manifest import InputRecord, hash_file
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
    """The jobs: the directory of their scripts, and what became of them.

    Attributes:
        logs: where the jobs write.
        submitted: step and job id, in order; empty unless submitted.
    """

    logs: Path
    submitted: tuple[tuple[str, str], ...]


def read_chain_and_cluster(config: SlurmConfig) -> tuple[Chain, Cluster]:
    """Recipe and profile, both checked, with the problems of both."""
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
    for step in chain.steps:
        if dict(step.config).get("num_procs") not in (None, 1):
            problems.append(
                f"step '{step.name}' gives num-procs, but under Slurm the profile says how many tasks there are"
            )
    if problems:
        raise ConfigError(problems, fix="take it out of the recipe, or:  --set steps.STEP.num-procs=null")
    return chain, cluster


def jobs_directory(config: SlurmConfig) -> Path:
    """Where the jobs start.

    Raises:
        InputError: there is no such directory.
    """
    directory = Path.cwd() if config.directory is None else config.directory.absolute()
    if not directory.is_dir():
        raise InputError(f"the directory '{directory}' for the jobs does not exist")
    return directory


def places(config: SlurmConfig, chain: Chain) -> tuple[Path, Path]:
    """Directories of scripts and logs."""
    directory = jobs_directory(config)
    out = directory / chain.out
    return (out / "jobs" if config.jobs is None else config.jobs.absolute()), out / "logs"


def script_texts(chain: Chain, cluster: Cluster, config: SlurmConfig, logs: Path) -> Iterator[tuple[str, str]]:
    """The scripts by file name."""
    assert config.directory is not None
    for step in chain.steps:
        text = job_script(chain.title, step, cluster, directory=config.directory, logs=logs, threads=chain.threads)
        yield f"{step.name}.sbatch", text
    yield SUBMIT, submit_script(chain.title, chain.steps, logs=logs)


def jobs_inputs(config: SlurmConfig) -> list[InputRecord]:
    """Records of recipe and profile."""
    files = (("recipe", recipe_path(str(config.recipe))), ("profile", Path(str(config.profile))))
    return [InputRecord(role=role, path=str(path), kind="file", fingerprint=hash_file(path)) for role, path in files]


def write_scripts(writer: ArtifactWriter, chain: Chain, texts: Mapping[str, str]) -> None:
    """The scripts as files that can be run."""
    for name, text in texts.items():
        path = writer.path / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
    writer.summary = {"recipe": chain.title, "jobs": len(chain.steps)}


def submit(target: Path) -> tuple[tuple[str, str], ...]:
    """Submit the chain; step and job id in order."""
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
