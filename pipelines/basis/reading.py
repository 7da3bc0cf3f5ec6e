"""A basis read as far as its description: verified, without its rows and without torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from data_registry.core.errors import ArtifactError
from data_registry.core.manifest import Manifest, open_artifact
from pipelines.basis.description import DESCRIPTION_FILE, BasisDescription


def open_basis(directory: Path, *, hashes: bool = False) -> tuple[BasisDescription, Manifest]:
    """Verify a basis artifact and read its description.

    Raises:
        InputError: there is no artifact.
        ArtifactError: it is no basis, or damaged.
    """
    manifest = open_artifact(directory, "basis", hashes=hashes)
    try:
        text = (directory / DESCRIPTION_FILE).read_text(encoding="utf-8")
        return BasisDescription.model_validate_json(text), manifest
    except (OSError, ValidationError) as error:
        raise ArtifactError(
            f"'{directory}' does not describe a basis", where=str(directory / DESCRIPTION_FILE)
        ) from error
