"""Artifacts that are damaged, missing, or of another kind."""

from __future__ import annotations

import json
import os

from tests.cli.bad_input.cases import ALPACA, ARTIFACT, CONFIGURATION, OUT, Arguments, Place, basis, case, sft


@case(CONFIGURATION, "prepare it first")
def data_that_was_not_prepared(place: Place) -> Arguments:
    return sft(place, data=place.rows("rows.jsonl", [ALPACA]))


@case(CONFIGURATION, "does not exist")
def missing_data(place: Place) -> Arguments:
    return sft(place, data=place.here / "none")


@case(
    CONFIGURATION,
    "prepare the same source for it:  ogpsa prepare-data testbed-safety-dpo --num-samples 12 --task sft --out",
)
def data_for_another_task(place: Place) -> Arguments:
    return sft(place, data=place.made / "pairs")


@case(ARTIFACT, "does not verify")
def truncated_data(place: Place) -> Arguments:
    data = place.copy("general")
    file = next(data.glob("*.arrow"))
    os.truncate(file, file.stat().st_size // 2)
    return basis(place, data=data)


@case(ARTIFACT, "newer ogpsa")
def data_of_a_newer_version(place: Place) -> Arguments:
    data = place.copy("general")
    manifest = json.loads((data / "manifest.json").read_text())
    (data / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}))
    return basis(place, data=data)


@case(ARTIFACT, "manifest.*damaged")
def damaged_manifest(place: Place) -> Arguments:
    data = place.copy("general")
    os.truncate(data / "manifest.json", 100)
    return basis(place, data=data)


@case(ARTIFACT, "is a basis, where a dataset or samples is needed")
def basis_as_data(place: Place) -> Arguments:
    return sft(place, data=place.made / "basis")


@case(ARTIFACT, "is a dataset")
def data_as_basis(place: Place) -> Arguments:
    return sft(place, "--basis", place.made / "general")


@case(ARTIFACT, "is a dataset")
def data_as_model(place: Place) -> Arguments:
    return basis(place, model=place.made / "general")


@case(CONFIGURATION, "does not exist")
def missing_basis(place: Place) -> Arguments:
    return sft(place, "--basis", place.here / "none")


@case(ARTIFACT, "does not verify")
def truncated_basis(place: Place) -> Arguments:
    damaged = place.copy("basis")
    file = next(damaged.glob("*.safetensors"))
    os.truncate(file, file.stat().st_size // 2)
    return sft(place, "--basis", damaged)


@case(ARTIFACT, "basis .*built for")
def basis_of_another_model(place: Place) -> Arguments:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = place.copy("model")
    config = LlamaConfig.from_pretrained(model, num_hidden_layers=2)
    LlamaForCausalLM(config).save_pretrained(model)
    return sft(place, "--basis", place.made / "basis", "--refresh-every", "0", model=model)


@case(CONFIGURATION, "both named 'general'")
def two_references_of_one_name(place: Place) -> Arguments:
    return basis(place, "--reference", place.copy("general"))


@case(CONFIGURATION, "not an artifact|neither an artifact")
def inspection_of_something_else(place: Place) -> Arguments:
    return ["inspect", place.here]


@case(CONFIGURATION, "does not exist")
def inspection_of_nothing(place: Place) -> Arguments:
    return ["inspect", place.here / "none"]


@case(ARTIFACT, "was changed after it was written")
def inspection_finds_a_flipped_bit(place: Place) -> Arguments:
    damaged = place.copy("basis")
    file = next(damaged.glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    return ["inspect", damaged]


@case(CONFIGURATION, "RESULTS.* is required")
def a_report_of_nothing(place: Place) -> Arguments:
    return ["report", "--out", OUT]


@case(CONFIGURATION, "there are no results at 'nowhere'")
def results_that_are_not_there(place: Place) -> Arguments:
    return ["report", "nowhere", "--out", OUT]


@case(CONFIGURATION, "holds no results")
def a_model_where_results_are_needed(place: Place) -> Arguments:
    return ["report", place.made / "model", "--out", OUT]


@case(ARTIFACT, "is a basis, where a results or judgement is needed")
def a_basis_where_results_are_needed(place: Place) -> Arguments:
    return ["report", place.made / "basis", "--out", OUT]


@case(CONFIGURATION, "neither a path nor NAME=PATH")
def results_with_an_empty_name(place: Place) -> Arguments:
    return ["report", "=results", "--out", OUT]
