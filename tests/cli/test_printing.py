"""What is printed is text: no control character, no markup, no forged line reaches a terminal or a pipe."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.table import Table
from rich.text import Text

from data_registry.core.errors import ConfigError, InputError
from ogpsa_cli import console
from ogpsa_cli.commands import chat, evaluate, prepare_data, report
from pipelines.reporting.tables import TextTable
from tests.cli.conftest import Cli
from tests.evaluation.test_results import metric, results

# A title, the clipboard, an erased line, an end of line, a reversed order, a C1 control, a separator.
HOSTILE = "\x1b]0;title\x07 \x1b]52;c;cHduZWQ=\x07 \x1b[2K\r \x08 \u202eexe.txt \x9b2J \u2028 \x7f"
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028]")
MARKUP = "[/red] [bold]x[/bold] :smile:"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


@pytest.fixture(params=["pipe", "terminal"])
def printed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What goes to standard output from here on."""
    stream = Terminal() if request.param == "terminal" else io.StringIO()
    monkeypatch.setattr(console, "_results", stream)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return stream


def test_nothing_that_is_printed_acts(printed: io.StringIO) -> None:
    console.write(HOSTILE)
    console.write_part(HOSTILE + "\n")
    table = Table()
    table.add_column(HOSTILE)
    table.add_row(HOSTILE + MARKUP)
    table.add_row(Text(HOSTILE))
    console.show(table, Text(HOSTILE), HOSTILE, console.text(HOSTILE + "\nforged"))
    evaluate._show(results(run=HOSTILE + MARKUP, suite=MARKUP, metrics=[metric(name=HOSTILE)]))
    console.show(report.text_table(TextTable((MARKUP, HOSTILE), ((HOSTILE, MARKUP),))))
    prepare_data._show_preview([[(HOSTILE, True), (MARKUP, False)]])
    shown = without_colours(printed.getvalue())
    assert CONTROLS.search(shown) is None, shown
    assert r"\x1b]0;title" in shown
    assert MARKUP in shown
    assert r"\nforged" in shown


def test_json_reads_back_and_acts_on_nothing(printed: io.StringIO) -> None:
    console.print_json({HOSTILE: [HOSTILE, "\U000e0041\u00e9"]})
    shown = without_colours(printed.getvalue())
    assert CONTROLS.search(shown) is None
    assert json.loads(shown) == {HOSTILE: [HOSTILE, "\U000e0041\u00e9"]}


def test_no_error_forges_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    forged = "x\nerror: all is lost\n  fix:   rm -rf ~\r\n"
    console.show_ogpsa_error(InputError(HOSTILE + forged, where=forged, fix=HOSTILE))
    console.hint(forged)
    lines = capsys.readouterr().err.splitlines()
    assert [line[:8] for line in lines] == ["error: \\", "  where:", "  fix:  ", "x\\nerror"]
    console.show_ogpsa_error(ConfigError([forged, "second"]))
    lines = capsys.readouterr().err.splitlines()
    assert [line[:10] for line in lines] == ["error: 2 p", "  - x\\nerr", "  - second"]


def test_a_bug_shows_nothing_either(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from ogpsa_cli.commands import doctor

    def execute(config: object) -> int:
        raise RuntimeError(HOSTILE)

    monkeypatch.setattr(doctor, "execute", execute)
    for arguments in (["doctor"], ["doctor", "--verbose"]):
        outcome = cli(*arguments)
        assert outcome.code == 1
        assert CONTROLS.search(outcome.err) is None


def test_each_answer_to_a_pipe_is_one_line_that_reads_back(printed: io.StringIO) -> None:
    answer = "a\\b\n\tc\x1b]0;t\x07"
    replies = [
        SimpleNamespace(name=f"m{n}\t\x1b", answer=lambda text, show: SimpleNamespace(text=answer)) for n in (1, 2)
    ]
    chat._answer(replies, "hello", is_terminal=False)  # type: ignore[arg-type]
    line = r"a\\b\n\tc\x1b]0;t\x07"
    assert printed.getvalue() == f"m1\\t\\x1b\t{line}\nm2\\t\\x1b\t{line}\n"
    assert line.encode().decode("unicode_escape") == answer


def test_inspect_shows_a_forged_manifest_as_text(cli: Cli, tmp_path: Path) -> None:
    from tests.inspecting.test_inspect import make

    made = make(tmp_path / "d", "dataset", [])
    manifest = json.loads((made / "manifest.json").read_text())
    manifest |= {
        "command": ["ogpsa", HOSTILE, "--password", "swordfish"],
        "summary": {HOSTILE: HOSTILE + "\nverifies  no", "key": MARKUP},
        "inputs": [{"role": HOSTILE, "path": HOSTILE + "\nx", "kind": "dataset", "fingerprint": "0" * 64}],
        "config": {"trainer": {"hub_token": "swordfish"}},
    }
    (made / "manifest.json").write_text(json.dumps(manifest))
    for arguments in (["inspect", made], ["inspect", made, "--as-json"]):
        outcome = cli(*arguments)
        assert outcome.code == 0
        assert CONTROLS.search(outcome.out) is None
        assert "swordfish" not in outcome.out
    lines = cli("inspect", made).out.splitlines()
    assert [line.split() for line in lines if line.startswith(("verifies", "x"))] == [
        ["verifies", "yes,", "all", "contents"]
    ]


@pytest.mark.parametrize("argument", ["bad\udcff", "\ud800"])
def test_a_name_that_no_artifact_can_hold_is_refused_at_once(cli: Cli, tmp_path: Path, argument: str) -> None:
    outcome = cli("evaluate", "m", "--suite", "testbed", "--name", argument, "--out", tmp_path / "r")
    assert outcome.code == 2
    assert "is not UTF-8" in outcome.err
