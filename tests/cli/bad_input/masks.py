"""Masks that cannot be built, and training that cannot be held to one."""

from __future__ import annotations

import shutil
from pathlib import Path

from data_registry.core.errors import OgpsaError
from pipelines.commands import build_mask
from pipelines.configs.build_mask import BuildMaskConfig
from tests.cli.bad_input.cases import (
    ARTIFACT,
    CONFIGURATION,
    OUT,
    Arguments,
    Place,
    case,
    model_of_nan,
    sft,
    with_options,
)


def mask(place: Place, *options: str | Path, model: Path | str | None = None) -> Arguments:
    """A build-mask command that would work, but for what a case changes."""
    arguments = ["build-mask", model or place.made / "model", "--score", "magnitude", "--out", OUT]
    return with_options(arguments, *options)


def made_mask(place: Place, model: Path | None = None) -> Path:
    """A mask that is whole."""
    path = place.here / "mask"
    values = {"model": str(model or place.made / "model"), "score": "random", "out": path, "include": ["*mlp*"]}
    try:
        return build_mask.run(BuildMaskConfig.model_validate(values)).path
    except OgpsaError as error:
        raise AssertionError(str(error)) from error


def other_model(place: Place) -> Path:
    """The model with another weight."""
    from safetensors.torch import load_file, save_file

    model = Path(shutil.copytree(place.made / "model", place.here / "other"))
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    return model


@case(CONFIGURATION, "--score change needs either --change RUN .* or --end MODEL")
def mask_by_a_change_of_nothing(place: Place) -> Arguments:
    return mask(place, "--score", "change")


@case(CONFIGURATION, "--score snip needs --data")
def mask_by_gradients_of_nothing(place: Place) -> Arguments:
    return mask(place, "--score", "snip")


@case(CONFIGURATION, "--zero needs --data")
def mask_by_weights_under_zero(place: Place) -> Arguments:
    return mask(place, "--zero", "2")


@case(CONFIGURATION, "--skip-top 0.1 leaves nothing of --ratio 0.05")
def mask_of_an_empty_band(place: Place) -> Arguments:
    return mask(place, "--skip-top", "0.1")


@case(CONFIGURATION, "--exclude \\*embeds\\* names no parameter")
def mask_that_leaves_out_what_is_not_there(place: Place) -> Arguments:
    return mask(place, "--exclude", "*embeds*")


@case(ARTIFACT, "is a basis, where a run is needed")
def mask_by_the_change_of_a_basis(place: Place) -> Arguments:
    return mask(place, "--score", "change", "--change", place.made / "basis")


@case(ARTIFACT, "is a basis, where a mask is needed")
def mask_minus_a_basis(place: Place) -> Arguments:
    return mask(place, "--minus", place.made / "basis")


@case(CONFIGURATION, "values of .*down_proj.* are NaN or infinite")
def mask_by_weights_that_are_no_numbers(place: Place) -> Arguments:
    return mask(place, model=model_of_nan(place))


@case(ARTIFACT, "was chosen for another model")
def training_with_the_mask_of_another_model(place: Place) -> Arguments:
    return sft(place, "--mask", made_mask(place, other_model(place)))


@case(ARTIFACT, "is a dataset, where a mask is needed")
def data_as_mask(place: Place) -> Arguments:
    return sft(place, "--mask", place.made / "general")


@case(ARTIFACT, "does not verify")
def training_with_half_a_mask(place: Place) -> Arguments:
    path = made_mask(place)
    file = next(path.glob("mask-*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1000])
    return sft(place, "--mask", path)


@case(CONFIGURATION, "--mask names weights of the model, and --lora-rank trains adapters")
def training_adapters_with_a_mask(place: Place) -> Arguments:
    return sft(place, "--mask", place.here / "mask", "--lora-rank", "2")


@case(CONFIGURATION, "--mask-at update does not go with --space gradient")
def masking_after_the_step_and_projecting_before_it(place: Place) -> Arguments:
    return sft(place, "--mask", place.here / "mask", "--basis", place.made / "basis")


@case(CONFIGURATION, "leaves no weight to train: all that it chooses are frozen by --freeze")
def training_what_mask_and_freezing_leave(place: Place) -> Arguments:
    return sft(place, "--mask", made_mask(place), "--freeze", "*.mlp.*")


@case(CONFIGURATION, "--mask-at gradient needs --mask")
def a_place_without_a_mask(place: Place) -> Arguments:
    return sft(place, "--mask-at", "gradient")
