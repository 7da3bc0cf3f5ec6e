"""A small artifact, whole or cut short."""

from __future__ import annotations

from pathlib import Path

from data_registry.core.manifest import (
    Manifest,
    read_manifest,
)
from pipelines.core.artifact import ArtifactWriter, write_artifact
from pipelines.core.config import CommandConfig, option


class Sample(CommandConfig):
    """A command for tests."""

    out: Path = option(Path("out"), "Where.", runtime=True)
    steps: int = option(1, "A count.")


CONFIG = Sample()


def fill(writer: ArtifactWriter) -> None:
    (writer.path / "rows.bin").write_bytes(bytes(range(256)) * 40)
    (writer.path / "deep").mkdir()
    (writer.path / "deep" / "index.json").write_text("{}")
    writer.summary["rows"] = 40


def make(target: Path, config: Sample = CONFIG, **options: bool) -> Manifest:
    with write_artifact(target, "dataset", config, [], **options) as writer:
        fill(writer)
    return read_manifest(target)
