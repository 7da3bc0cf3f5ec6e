"""Configuration: the order of sources, all problems at once, YAML as people write it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import model_validator

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError, InputError
from data_registry.core.yaml_text import dump, parse_yaml
from pipelines.core.config import CommandConfig, option, read_config_file, resolve


class Sample(CommandConfig):
    """A command for tests."""

    source: str = option("none", "What to read.", positional=True)
    out: Path | None = option(None, "Where to write.", runtime=True)
    rate: float = option(1e-6, "A number.", gt=0)
    steps: int = option(10, "A count.", ge=1)
    dtype: Literal["fp32", "bf16"] = option("fp32", "A choice.")
    zero: Literal[0, 1, 2] | None = option(None, "A numeric choice.")
    quiet: bool = option(False, "A switch.")
    names: list[str] = option([], "Several.")
    paths: list[Path] = option([], "Several paths.")
    extra: dict[str, Any] = option({}, "A group.")

    @model_validator(mode="after")
    def _check(self) -> Sample:
        if self.quiet and self.steps == 13:
            raise ValueError("--quiet does not go with --steps 13")
        return self


class Needy(CommandConfig):
    """A command with required options."""

    model: str = option(..., "The model.", positional=True)
    out: Path = option(..., "The directory.")


@pytest.fixture
def config_file(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problems_of(config_class: type[CommandConfig], **sources: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve(config_class, **sources)
    return caught.value.problems


# --- Order -------------------------------------------------------------------------------------------------------

rates = st.none() | st.floats(min_value=1e-12, max_value=1e6, allow_nan=False)


@given(file=rates, flag=rates, assigned=rates)
def test_default_then_file_then_flag_then_set(
    tmp_path_factory: pytest.TempPathFactory, file: float | None, flag: float | None, assigned: float | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "order.yaml"
    path.write_text("" if file is None else dump({"rate": file}))
    config = resolve(
        Sample,
        file=path,
        flags={} if flag is None else {"rate": repr(flag)},
        sets=[] if assigned is None else [f"rate={assigned!r}"],
    )
    given_values = [value for value in (1e-6, file, flag, assigned) if value is not None]
    assert config.rate == given_values[-1]


def test_sets_win_and_reach_into_groups(config_file: Callable[[str], Path]) -> None:
    file = config_file("extra: {a: 1, b: {c: 2}}\n")
    config = resolve(Sample, file=file, sets=["extra.b.c=3", "extra.b.d=x", "extra.a=5"])
    assert config.extra == {"a": 5, "b": {"c": 3, "d": "x"}}


def test_names_with_dashes_are_ours_but_keys_below_stay_as_they_are(config_file: Callable[[str], Path]) -> None:
    config = resolve(Sample, file=config_file("extra:\n  my-column: x\n"), sets=["extra.other-column=y"])
    assert config.extra == {"my-column": "x", "other-column": "y"}


def test_a_flag_replaces_the_files_list(config_file: Callable[[str], Path]) -> None:
    assert resolve(Sample, file=config_file("names: [a, b]"), flags={"names": ["c"]}).names == ["c"]


def test_a_single_text_does_for_a_list(config_file: Callable[[str], Path]) -> None:
    assert resolve(Sample, file=config_file("paths: data")).paths == [Path("data")]


def test_home_is_expanded_in_paths_only() -> None:
    config = resolve(Sample, flags={"out": "~/x", "source": "~/x", "paths": ["~/y"]})
    assert config.out == Path.home() / "x"
    assert config.paths == [Path.home() / "y"]
    assert config.source == "~/x"


# --- Problems ----------------------------------------------------------------------------------------------------


def test_all_problems_are_shown_at_once() -> None:
    found = problems_of(
        Sample,
        flags={"rate": "fast", "steps": "0", "dtype": "bf61", "nmaes": ["x"], "zero": 7},
        sets=["novalue", "extra=3", "quiet=maybe"],
    )
    text = "\n".join(found)
    assert len(found) == 8
    assert "option --rate: needs a number, got 'fast'" in found
    assert "option --steps: must be at least 1, got 0" in text or "must be at least 1, got '0'" in text
    assert "option --dtype: must be 'fp32' or 'bf16', got 'bf61' (did you mean 'bf16'?)" in found
    assert "unknown option 'nmaes' (did you mean 'names'?)" in found
    assert "option --zero: must be 0, 1 or 2, got 7" in found
    assert "--set takes KEY=VALUE, not 'novalue'" in found
    assert "option --set extra: needs a group of 'key: value' lines, got 3" in found
    assert "option --quiet: needs true or false, got 'maybe'" in found


def test_required_options_say_what_they_are_for() -> None:
    assert set(problems_of(Needy)) == {"MODEL is required: The model.", "option --out is required: The directory."}


def test_contradictions_are_told_in_the_validators_words() -> None:
    assert problems_of(Sample, flags={"quiet": True, "steps": 13}) == ["--quiet does not go with --steps 13"]


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (["steps=true"], "option --steps: does not take true"),
        (["zero=true"], "option --zero: does not take true"),
        (["rate=.inf"], "option --rate: needs a finite number, got inf"),
        (["rate=.nan"], "option --rate: needs a finite number, got nan"),
        (["steps=1.5"], "option --steps: needs a whole number, got 1.5"),
        (["source=12"], "SOURCE: needs text, got 12 (put it in quotes if it is meant as text)"),
        (["out="], None),
        (["out=''"], "option --out is empty (a shell variable that was never set?)"),
        (["source=''"], "SOURCE is empty (a shell variable that was never set?)"),
        (["names=[a, 1]"], "option --names: needs text, got 1 (put it in quotes if it is meant as text)"),
        (["source.x=1", "source.x.y=2"], "--set source.x.y=2: 'x' is not a group of options"),
        (["rate=["], "not valid YAML"),
        (["=3"], "--set takes KEY=VALUE, not '=3'"),
    ],
)
def test_single_problems(sets: list[str], expected: str | None) -> None:
    if expected is None:
        assert resolve(Sample, sets=sets).out is None
    else:
        assert any(expected in problem for problem in problems_of(Sample, sets=sets))


def test_every_default_is_valid_for_every_command() -> None:
    from ogpsa_cli.pages import page_of
    from pipelines.configs.commands import COMMANDS

    for entry in COMMANDS:
        assert page_of(entry).flags


@given(st.text(min_size=1, max_size=8), st.lists(st.text(min_size=1, max_size=8), max_size=5))
def test_suggestions_are_known_words_or_nothing(word: str, known: list[str]) -> None:
    text = suggest(word, known)
    assert text == "" or any(f"'{name}'" in text for name in known)


# --- Files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"rate: 1\nrate: 2\n", "appears twice"),
        (b"extra: {a: 1, a: 2}\n", "appears twice"),
        (b"my-rate: 1\nmy_rate: 2\n", "appears twice"),
        (b"- a\n- b\n", "holds 'key: value' lines; this one is a list"),
        (b"just words\n", "holds 'key: value' lines; this one is a str"),
        (b"rate: [1\n", "not valid YAML"),
        (b"rate: \x00\n", "not valid YAML"),
        (b"? [a]\n: b\n", "not valid YAML"),
        (b"!!python/object/apply:os.system [ls]\n", "not valid YAML"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        read_config_file(path)


def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_config_file(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="is a directory"):
        read_config_file(tmp_path)
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(InputError, match="is not text"):
        read_config_file(tmp_path / "bad.yaml")


def test_an_empty_file_changes_nothing(config_file: Callable[[str], Path]) -> None:
    assert resolve(Sample, file=config_file("# nothing\n")) == Sample()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("1E5", 1e5),
        ("1.5e+3", 1500.0),
        ("-2", -2),
        (".5", 0.5),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("2024-01-01", "2024-01-01"),
        ("12:30:45", "12:30:45"),
        ("007", "007"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("~", None),
        ("", None),
        ("e5", "e5"),
    ],
)
def test_yaml_scalars_mean_what_they_look_like(text: str, value: object) -> None:
    parsed = parse_yaml(text, where="test")
    assert parsed == value
    assert type(parsed) is type(value)


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=12)
    | st.sampled_from(["1e-6", "no", "010", "2024-01-01", "~", "1:30", "=", "<<", "0x1", ".5", "a: b", "- x", "#"])
)  # fmt: skip


@given(st.dictionaries(st.text("abcdef_", min_size=1), scalars | st.lists(scalars, max_size=3), max_size=5))
def test_what_is_dumped_is_read_back(values: dict[str, Any]) -> None:
    assert parse_yaml(dump(values), where="test") == values


def test_merge_keys_work() -> None:
    assert parse_yaml("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}", where="test")["b"] == {"p": 1, "q": 3}


def test_a_dumped_configuration_resolves_to_itself(config_file: Callable[[str], Path]) -> None:
    config = resolve(Sample, flags={"rate": "3e-7", "names": ["1e3", "no"], "out": "a b"}, sets=["extra.k=~"])
    assert resolve(Sample, file=config_file(config.to_yaml())) == config


# --- Identity ----------------------------------------------------------------------------------------------------


def test_runtime_options_are_not_part_of_the_identity() -> None:
    assert Sample(out=Path("a")).identity_hash() == Sample(out=Path("b")).identity_hash()
    assert Sample(steps=3).identity_hash() != Sample(steps=4).identity_hash()
    assert "out" not in Sample().identity()


def test_configurations_do_not_share_their_lists() -> None:
    Sample().names.append("x")
    assert Sample().names == []


def test_names_that_are_not_utf8_are_refused_before_they_would_have_to_be_recorded() -> None:
    strange = b"\xff.jsonl".decode("utf-8", "surrogateescape")
    assert problems_of(Sample, flags={"source": strange, "out": Path(strange), "paths": ["a", strange]}) == [
        "SOURCE: '\\udcff.jsonl' is not UTF-8; rename it",
        "option --out: '\\udcff.jsonl' is not UTF-8; rename it",
        "option --paths: '\\udcff.jsonl' is not UTF-8; rename it",
    ]
    assert resolve(Sample, flags={"source": "é東.jsonl"}).source == "é東.jsonl"
