"""Models that cannot be used."""

from __future__ import annotations

import os

from tests.cli.bad_input.cases import CONFIGURATION, Arguments, Place, basis, case


@case(CONFIGURATION, "does not exist|no directory here|neither a directory")
def missing_model(place: Place) -> Arguments:
    return basis(place, model="./no/such/model")


@case(CONFIGURATION, "hub")
def model_on_a_hub_that_cannot_be_reached(place: Place) -> Arguments:
    return basis(place, model="nobody/nothing")


@case(CONFIGURATION, "no config.json")
def model_without_configuration(place: Place) -> Arguments:
    model = place.copy("model")
    (model / "config.json").unlink()
    return basis(place, model=model)


@case(CONFIGURATION, "holds no weights")
def model_without_weights(place: Place) -> Arguments:
    model = place.copy("model")
    (model / "model.safetensors").unlink()
    return basis(place, model=model)


@case(CONFIGURATION, "model.safetensors.*damaged")
def truncated_weights(place: Place) -> Arguments:
    model = place.copy("model")
    os.truncate(model / "model.safetensors", 100_000)
    return basis(place, model=model)


@case(CONFIGURATION, "pickle")
def pickled_weights(place: Place) -> Arguments:
    model = place.copy("model")
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    return basis(place, model=model)


@case(CONFIGURATION, "does not know model type 'llamma'")
def unknown_model_type(place: Place) -> Arguments:
    return basis(place, model=place.changed_model(model_type="llamma"))


@case(CONFIGURATION, "not a causal language model")
def model_that_writes_no_text(place: Place) -> Arguments:
    return basis(place, model=place.changed_model(model_type="bert", architectures=["BertModel"]))


@case(CONFIGURATION, "do not fit")
def weights_of_another_shape(place: Place) -> Arguments:
    return basis(place, model=place.changed_model(hidden_size=48, head_dim=12))


@case(CONFIGURATION, "is a file")
def file_as_model(place: Place) -> Arguments:
    return basis(place, model=place.made / "model" / "model.safetensors")


@case(CONFIGURATION, "(?i)revision")
def revision_of_a_directory(place: Place) -> Arguments:
    return basis(place, "--revision", "main")


@case(CONFIGURATION, "holds no tokenizer")
def model_without_tokenizer(place: Place) -> Arguments:
    model = place.copy("model")
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").unlink()
    return basis(place, model=model)


@case(CONFIGURATION, "chat template is not Jinja")
def broken_chat_template(place: Place) -> Arguments:
    return basis(place, "--chat-template", place.file("template.jinja", "{% for m in messages %}{{ m.content }"))


@case(CONFIGURATION, "chat template cannot be read")
def missing_chat_template(place: Place) -> Arguments:
    return basis(place, "--chat-template", place.here / "none.jinja")


@case(CONFIGURATION, "attention 'flashiest'")
def unknown_attention(place: Place) -> Arguments:
    return basis(place, "--attention", "flashiest")
