"""Mistakes on the command line and in configuration files."""

from __future__ import annotations

from tests.cli.bad_input.cases import CONFIGURATION, Arguments, Place, case, sft


@case(CONFIGURATION, "no command 'trian-sft'.*did you mean 'train-sft'")
def unknown_command(place: Place) -> Arguments:
    return ["trian-sft", "model"]


@case(CONFIGURATION, "no option '--learnin-rate'.*did you mean '--learning-rate'")
def unknown_flag(place: Place) -> Arguments:
    return sft(place, "--learnin-rate", "1e-4")


@case(CONFIGURATION, "'--basis' requires an argument")
def flag_without_value(place: Place) -> Arguments:
    return sft(place, "--basis")


@case(CONFIGURATION, "unexpected extra argument")
def argument_too_many(place: Place) -> Arguments:
    return [*sft(place), "another"]


@case(CONFIGURATION, r"3 problems:\n.*required")
def nothing_given(place: Place) -> Arguments:
    return ["train-sft"]


@case(CONFIGURATION, "--max-steps: needs a whole number, got 'many'")
def word_for_a_number(place: Place) -> Arguments:
    return sft(place, "--max-steps", "many")


@case(CONFIGURATION, "--strength: must be at most 1")
def number_out_of_range(place: Place) -> Arguments:
    return sft(place, "--strength", "1.5")


@case(CONFIGURATION, "--learning-rate: needs a finite number")
def infinite_number(place: Place) -> Arguments:
    return sft(place, "--learning-rate", "inf")


@case(CONFIGURATION, "--space: must be .*did you mean 'gradient'")
def unknown_choice(place: Place) -> Arguments:
    return sft(place, "--space", "gradeint")


@case(CONFIGURATION, "--offload needs --zero 2 or --zero 3")
def options_that_need_each_other(place: Place) -> Arguments:
    return sft(place, "--offload")


@case(CONFIGURATION, "--out is empty")
def variable_that_was_never_set(place: Place) -> Arguments:
    return ["build-basis", place.made / "model", "--reference", place.made / "general", "--out", ""]


@case(CONFIGURATION, "'config.yaml' does not exist")
def missing_configuration_file(place: Place) -> Arguments:
    return sft(place, "--config", "config.yaml")


@case(CONFIGURATION, "unknown option 'learnig_rate'.*did you mean 'learning_rate'")
def unknown_key_in_the_file(place: Place) -> Arguments:
    return sft(place, "--config", place.file("config.yaml", "learnig-rate: 1e-5\n"))


@case(CONFIGURATION, "not valid YAML")
def broken_yaml(place: Place) -> Arguments:
    return sft(place, "--config", place.file("config.yaml", "learning_rate: [1e-5\n"))


@case(CONFIGURATION, r"'epochs' appears twice \(line 2")
def key_given_twice(place: Place) -> Arguments:
    return sft(place, "--config", place.file("config.yaml", "epochs: 1\nepochs: 2\n"))


@case(CONFIGURATION, "this one is a list")
def yaml_of_another_shape(place: Place) -> Arguments:
    return sft(place, "--config", place.file("config.yaml", "- epochs\n- 1\n"))


@case(CONFIGURATION, "is not text")
def binary_configuration_file(place: Place) -> Arguments:
    return sft(place, "--config", place.file("config.yaml", b"\x89PNG\xff\xfe"))


@case(CONFIGURATION, "is a directory")
def directory_as_configuration_file(place: Place) -> Arguments:
    return sft(place, "--config", place.made)


@case(CONFIGURATION, "KEY=VALUE")
def set_without_value(place: Place) -> Arguments:
    return sft(place, "--set", "epochs")


@case(CONFIGURATION, "neftune_noise_alpha")
def unknown_trainer_option(place: Place) -> Arguments:
    return sft(place, "--set", "trainer.neftune_noise_alhpa=5")


@case(CONFIGURATION, "there is no .*, and nothing was left beside it")
def nothing_to_clean(place: Place) -> Arguments:
    return ["clean", place.here / "runs"]


@case(CONFIGURATION, "is no directory")
def file_to_clean(place: Place) -> Arguments:
    return ["clean", place.file("notes", "x"), "--yes"]


@case(CONFIGURATION, "is not UTF-8")
def name_that_is_no_text(place: Place) -> Arguments:
    return ["testbed", "--out", "caf\udce9"]
