"""Which prompt sets a suite of prompts consists of: those of the registry, files of one's own, or a YAML file's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from data_registry.core.documents import parse_yaml
from data_registry.core.errors import ConfigError
from data_registry.formats.prompt_sets import PromptLayout
from data_registry.prompts.specs import PromptSetSpec, PromptSuiteSpec

SAFETY: Final = "safety"
PROMPTS: Final = "prompts"
SAFETY_SETS: Final = ("xstest", "harmbench", "strongreject", "advbench", "wildjailbreak")


def registry_spec(names: Sequence[str]) -> PromptSuiteSpec:
    """Prompt sets of the registry; their figures have the same names whichever are asked for together."""
    return PromptSuiteSpec(name=SAFETY, sets=[PromptSetSpec(data=name) for name in names])


def files_spec(harmful: Sequence[Path], harmless: Sequence[Path]) -> PromptSuiteSpec:
    """The specification of local files.

    Raises:
        ConfigError: there are none, or two have one name.
    """
    sets = [
        PromptSetSpec(data=str(path.absolute()), layout=PromptLayout(harmful=is_harmful))
        for paths, is_harmful in ((harmful, True), (harmless, False))
        for path in paths
    ]
    if not sets:
        raise ConfigError("suite 'prompts' needs files with prompts: --harmful FILE or --harmless FILE")
    try:
        return PromptSuiteSpec(name=PROMPTS, sets=sets)
    except ValidationError as error:
        raise ConfigError(f"--harmful and --harmless: {_reason(error)}", fix="rename one of the files") from error


def read_suite_file(path: Path) -> PromptSuiteSpec:
    """A suite from its YAML file.

    Raises:
        ConfigError: it cannot be read, or is no suite; with all problems.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"), where=str(path))
    except FileNotFoundError as error:
        raise ConfigError(f"the suite file '{path}' does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the suite file cannot be read: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise ConfigError("a suite file holds 'key: value' lines: name and sets", where=str(path))
    try:
        return PromptSuiteSpec.model_validate({"name": path.stem, **content})
    except ValidationError as error:
        raise ConfigError(_reasons(error), where=str(path)) from error


def _reason(error: ValidationError) -> str:
    return _reasons(error)[0]


def _reasons(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors(include_url=False):
        place = ".".join(str(part) for part in problem["loc"])
        unknown = problem["type"] == "extra_forbidden"
        message = "unknown key" if unknown else problem["msg"].removeprefix("Value error, ")
        lines.append(f"{place}: {message}" if place else message)
    return lines
