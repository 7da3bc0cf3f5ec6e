"""Tokens that cannot be scored."""

from __future__ import annotations

from pathlib import Path

from tests.cli.bad_input.cases import (
    ARTIFACT,
    CONFIGURATION,
    NUMERICS,
    OUT,
    Arguments,
    Place,
    case,
    model_of_nan,
    with_options,
)


def tokens(place: Place, *options: str | Path, model: Path | None = None, data: Path | None = None) -> Arguments:
    """A score-tokens command that would work, but for what a case changes."""
    arguments = ["score-tokens", model or place.made / "model", "--data", data or place.made / "pairs"]
    return with_options([*arguments, "--precision", "fp32", "--out", OUT], *options)


@case(CONFIGURATION, "rows for sft, which have no side 'rejected'.*fix:   the sides of preference pairs are")
def tokens_of_a_side_that_is_not_there(place: Place) -> Arguments:
    return tokens(place, "--side", "rejected", data=place.made / "safety")


@case(CONFIGURATION, "--rule rewriter needs a right solution for each 'answer', in a column 'reference'")
def tokens_without_right_solutions(place: Place) -> Arguments:
    return tokens(place, data=place.made / "safety")


@case(CONFIGURATION, "--threshold 1.5 is no probability")
def tokens_below_more_than_one(place: Place) -> Arguments:
    return tokens(place, "--threshold", "1.5")


@case(CONFIGURATION, "--top")
def tokens_of_more_than_the_answer(place: Place) -> Arguments:
    return tokens(place, "--map", "top", "--top", "1.1")


@case(CONFIGURATION, "--rule ratio needs --against MODEL")
def tokens_against_nothing(place: Place) -> Arguments:
    return tokens(place, "--rule", "ratio")


@case(CONFIGURATION, "--map top needs a --rule other than edit")
def tokens_edited_and_mapped(place: Place) -> Arguments:
    return tokens(place, "--rule", "edit", "--map", "top")


@case(ARTIFACT, "is a basis, where a dataset or samples is needed")
def tokens_of_a_basis(place: Place) -> Arguments:
    return tokens(place, data=place.made / "basis")


@case(NUMERICS, "gives a token a probability that is no number")
def tokens_by_a_broken_model(place: Place) -> Arguments:
    return tokens(place, "--rule", "logprob", model=model_of_nan(place))
