"""Opening a mask: verified, checked against the model that training starts from, read by this rank's slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from data_registry.core.errors import ArtifactError, OgpsaError
from data_registry.core.manifest import InputRecord, Manifest, open_artifact, read_manifest
from pipelines.engine.shards.access import ShardAccess
from pipelines.masks.description import DESCRIPTION_FILE, KIND, MaskDescription
from pipelines.masks.storage import StoredMask

_MODEL_ROLE = "model"
_MOST_ANCESTORS = 1000


@dataclass(frozen=True)
class OpenMask:
    """A mask that is ready to be read.

    Attributes:
        directory: the artifact.
        description: what is kept with it.
        manifest: its manifest.
        stored: its bits.
    """

    directory: Path
    description: MaskDescription
    manifest: Manifest
    stored: StoredMask


def open_mask(directory: Path, *, hashes: bool = False) -> OpenMask:
    """Verify a mask artifact and read its description.

    Raises:
        InputError: there is no artifact.
        ArtifactError: it is no mask, or damaged.
    """
    manifest = open_artifact(directory, KIND, hashes=hashes)
    try:
        description = MaskDescription.model_validate_json((directory / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise ArtifactError(
            f"'{directory}' does not describe a mask", where=str(directory / DESCRIPTION_FILE)
        ) from error
    return OpenMask(directory, description, manifest, StoredMask(directory))


def check_model(mask: OpenMask, record: InputRecord) -> None:
    """Refuse a mask that was chosen for neither the model that training starts from nor one that it was trained from.

    Args:
        mask: the mask.
        record: the record of the model that training starts from.

    Raises:
        ArtifactError: the mask is of another model.
    """
    wanted = mask.description.model_fingerprint
    if wanted in _ancestry(record):
        return
    raise ArtifactError(
        f"mask '{mask.directory}' was chosen for another model: '{mask.description.model}'",
        where=f"fingerprint {wanted[:16]} there; '{record.path}', with {record.fingerprint[:16]}, "
        "neither is that model nor was trained from it",
        fix="choose weights of this one:  ogpsa build-mask MODEL --change RUN --out DIR",
    )


def _ancestry(record: InputRecord) -> set[str]:
    """The fingerprints of a model and of those that runs trained it from, as far as their manifests are found."""
    found: set[str] = set()
    waiting = [record]
    while waiting and len(found) < _MOST_ANCESTORS:
        each = waiting.pop()
        if each.fingerprint in found:
            continue
        found.add(each.fingerprint)
        try:
            manifest = read_manifest(Path(each.path))
        except OgpsaError:
            continue
        # What lies there now may be something else than what the model was trained from.
        if manifest.fingerprint == each.fingerprint:
            waiting += [before for before in manifest.inputs if before.role == _MODEL_ROLE]
    return found


def check_shapes(mask: OpenMask, shapes: Mapping[str, Sequence[int]], architecture: str) -> None:
    """Refuse a mask that was chosen for parameters of other names or shapes.

    Args:
        mask: the mask.
        shapes: the shapes of the model's parameters by name.
        architecture: the name of the model's class, for the message.

    Raises:
        ArtifactError: a parameter differs; the message names the first one.
    """
    here, there = {name: list(shape) for name, shape in shapes.items()}, mask.description.shapes
    if here == there:
        return
    differing = next(name for name in {**here, **there} if here.get(name) != there.get(name))
    raise ArtifactError(
        f"mask '{mask.directory}' was chosen for {len(there)} parameters of {mask.description.architecture}; "
        f"this model has {len(here)} parameters of {architecture}",
        where=f"{differing} is {here.get(differing, 'absent')} here and {there.get(differing, 'absent')} in the mask",
        fix="choose weights of this model:  ogpsa build-mask MODEL ... --out DIR",
    )


def read_frozen(mask: OpenMask, access: ShardAccess) -> list[Tensor]:
    """For each of this rank's shards the elements that are not in the mask: ``[numel]`` bool, where gradients are."""
    return [
        torch.from_numpy(~mask.stored.flags(access.names[shard.tensor], shard.start, shard.numel)).to(
            access.rows_device()
        )
        for shard in access.shards
    ]
