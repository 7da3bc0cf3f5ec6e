"""YAML that is small as text and has no bound as a value, and values that are none: one short error each."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_registry.core.errors import ConfigError
from data_registry.core.yaml_text import MAX_DEPTH, MAX_VALUES, parse_yaml
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.core.config import resolve


def laughs(levels: int, *, merged: bool = False) -> str:
    """Ten times as many values at each level."""
    lines = ["a0: &a0 {x: 1}" if merged else "a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    for level in range(1, levels):
        ten = ",".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} " + (f"{{<<: [{ten}]}}" if merged else f"[{ten}]"))
    return "\n".join(lines) + "\n"


def ladder(steps: int) -> str:
    """Deeper by one alias at each step."""
    return "a0: &a0 [1]\n" + "".join(f"a{step}: &a{step} [*a{step - 1}]\n" for step in range(1, steps))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (laughs(9), "with its aliases written out"),
        (laughs(60), "with its aliases written out"),
        (laughs(9, merged=True), "with its aliases written out"),
        (ladder(500), f"more than {MAX_DEPTH} deep"),
        ("[" * 600, f"more than {MAX_DEPTH} deep"),
        ("[" * 100 + "]" * 100, f"more than {MAX_DEPTH} deep"),
        ("- " * 20_000, f"more than {MAX_DEPTH} deep"),
        ("{a: " * 20_000, f"more than {MAX_DEPTH} deep"),
        ("a: &a [*a]", "a value contains itself"),
        ("&a {b: {c: *a}}", "a value contains itself"),
        ("seed: " + "1" * 5000, "a value that cannot be read"),
        ("a: !!int x", "not valid YAML"),
        ("a: !!bool maybe", "not valid YAML"),
        ("a: !!timestamp 2020-13-45", "not valid YAML"),
        ("a: !!timestamp soon", "not valid YAML"),
        ("a: !!float x", "not valid YAML"),
        ("a: !!binary ä", "not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("? [a]\n: 1", "not valid YAML"),
        ("? {a: 1}\n: 1", "not valid YAML"),
        ('a: "\\ud800"', "half of a surrogate pair"),
        ("a: \x00", "not valid YAML"),
        ("a: *b", "not valid YAML"),
        ("--- 1\n--- 2", "not valid YAML"),
    ],
)
def test_yaml_that_is_no_value_is_one_short_error(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, where="c.yaml")
    assert says in caught.value.what
    assert caught.value.where == "c.yaml"
    assert len(str(caught.value)) < 500


def test_aliases_that_people_write_are_read() -> None:
    assert parse_yaml("base: &b {x: [1, 2]}\nother: {<<: *b, y: *b}", where="c") == {
        "base": {"x": [1, 2]},
        "other": {"x": [1, 2], "y": {"x": [1, 2]}},
    }
    assert len(parse_yaml(laughs(5), where="c")["a4"]) == 10
    assert parse_yaml("", where="c") is None
    assert MAX_VALUES > 10**5


def test_options_full_of_aliases_are_told_in_a_screen(tmp_path: Path) -> None:
    names = ("seed", "num_samples", "heldout_fraction", "max_length", "max_dropped")
    text = f"{names[0]}: &a0 [{','.join(['1'] * 10)}]\n"
    for level, name in enumerate(names[1:], start=1):
        text += f"{name}: &a{level} [{','.join([f'*a{level - 1}'] * 10)}]\n"
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        resolve(PrepareDataConfig, file=file)
    assert len(caught.value.problems) >= len(names)
    assert len(str(caught.value)) < 2600
    with pytest.raises(ConfigError, match="no option has so many"):
        resolve(PrepareDataConfig, sets=["columns." + "a." * 3000 + "b=1"])


pieces = st.lists(
    st.sampled_from(
        ["a: ", "- ", "&a ", "*a", "[", "]", "{", "}", ", ", "\n", "  ", "? ", ": ", "!!int ", "!!set ", "!!omap ",
         "!!binary ", "<<: ", '"\\ud83d"', "'", '"', "1" * 4400, "~", "---\n", "|", ">", "#", "%YAML 9.9\n", "\t", "é"]
    ),
    max_size=25,
).map("".join)  # fmt: skip


@given(text=pieces)
def test_any_text_is_a_value_or_an_error_for_the_user(text: str) -> None:
    said = ""
    try:
        parse_yaml(text, where="c.yaml")
    except ConfigError as error:
        said = str(error)
    assert len(said) < 1000
