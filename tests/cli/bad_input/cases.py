"""What a case of bad input is, and commands that would work but for what a case changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

CONFIGURATION, ARTIFACT, NUMERICS = 2, 3, 4
OUT = "out"
Arguments = Sequence[str | Path]


@dataclass(frozen=True)
class Place:
    """Where a case prepares its input.

    Attributes:
        here: an empty directory, the working directory of the command.
        made: whole artifacts (``model``, ``general``, ``safety``, ``pairs``, ``basis``), not to be changed.
    """

    here: Path
    made: Path

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.here / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def rows(self, name: str, rows: Sequence[object]) -> Path:
        return self.file(name, "".join(json.dumps(row) + "\n" for row in rows))

    def copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.made / name, self.here / name))

    def changed_model(self, **changes: object) -> Path:
        model = self.copy("model")
        config = json.loads((model / "config.json").read_text()) | changes
        (model / "config.json").write_text(json.dumps(config))
        return model


@dataclass(frozen=True)
class Case:
    """One kind of bad input.

    Attributes:
        prepare: makes it.
        code: the exit code that it must give.
        says: a pattern that the error must contain.
    """

    prepare: Callable[[Place], Arguments]
    code: int
    says: str

    @property
    def name(self) -> str:
        return self.prepare.__name__


CASES: list[Case] = []
Prepare = Callable[[Place], Arguments]


def case(code: int, says: str) -> Callable[[Prepare], Prepare]:
    """Register a case under its function's name."""

    def register(prepare: Prepare) -> Prepare:
        CASES.append(Case(prepare, code, says))
        return prepare

    return register


def with_options(arguments: Arguments, *options: str | Path) -> Arguments:
    """A command with more options, which replace its own of the same name unless these can be repeated."""
    kept: list[str | Path] = []
    words = iter(arguments)
    for word in words:
        if str(word).startswith("--") and word in options and word not in ("--reference", "--data"):
            next(words)
        else:
            kept.append(word)
    return [*kept, *options]


ALPACA = {"instruction": "What is two and two?", "output": "Four."}


def sft(place: Place, *options: str | Path, model: Path | str | None = None, data: Path | None = None) -> Arguments:
    """A training command that would work, but for what a case changes."""
    arguments = ["train-sft", model or place.made / "model", "--data", data or place.made / "safety"]
    return with_options([*arguments, "--max-steps", "1", "--precision", "fp32", "--out", OUT], *options)


def basis(place: Place, *options: str | Path, model: Path | str | None = None, data: Path | None = None) -> Arguments:
    """A build-basis command that would work, but for what a case changes."""
    arguments = ["build-basis", model or place.made / "model", "--reference", data or place.made / "general"]
    return with_options([*arguments, "--num-samples", "2", "--precision", "fp32", "--out", OUT], *options)


def prepare(source: str | Path, *options: str | Path) -> Arguments:
    """A prepare-data command."""
    return with_options(["prepare-data", source, "--out", OUT], *options)


def model_of_nan(place: Place) -> Path:
    from safetensors.torch import load_file, save_file

    model = place.copy("model")
    weights = load_file(model / "model.safetensors")
    name = next(name for name in weights if "down_proj" in name)
    weights[name].fill_(float("nan"))
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    return model
