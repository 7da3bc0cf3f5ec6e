"""A file answers one question, and so does a function: neither grows beyond what can be read at a sitting."""

from __future__ import annotations

import pytest

from tests.structure.code import ROOT, read_modules

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70

MODULES = read_modules()
TESTS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("file", [*(module.file for module in MODULES.values()), *TESTS])
def test_no_file_is_long(file: str) -> None:
    assert len((ROOT / file).read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize("name", MODULES)
def test_no_function_is_long(name: str) -> None:
    module = MODULES[name]
    assert not {function: lines for function, lines in module.functions() if lines > MAX_FUNCTION_LINES}
