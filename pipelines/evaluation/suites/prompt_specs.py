"""Which prompt sets a suite of prompts consists of: those of the registry, files of one's own, or a YAML file's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from data_registry.core.documents import explain, parse, read_text
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
        problem = explain(error, PromptSuiteSpec)[0]
        raise ConfigError(f"--harmful and --harmless: {problem}", fix="rename one of the files") from error


def read_suite_file(path: Path) -> PromptSuiteSpec:
    """A suite from its YAML file.

    Raises:
        InputError: it cannot be read.
        ConfigError: it is no suite; with all problems.
    """
    text = read_text(path, "suite file")
    return parse(PromptSuiteSpec, text, what="suite file", where=str(path), defaults={"name": path.stem})
