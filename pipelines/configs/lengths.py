"""The longest sequence of commands that read prepared data: as it was settled when the data was prepared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from pipelines.core.config import CommandConfig

DEFAULT_LENGTH: Final = 2048
MAX_LENGTH_HELP: Final = (
    "Longest sequence in tokens; longer ones are cut. By default the greatest that the data was prepared with, where a "
    f"set without one counts as {DEFAULT_LENGTH}."
)


@dataclass(frozen=True)
class Length:
    """The longest sequence that a command takes.

    Attributes:
        tokens: its number of tokens.
        origin: where that number is from, in words.
        is_prepared: whether it is from the preparation of the data.
    """

    tokens: int
    origin: str
    is_prepared: bool = False

    def __str__(self) -> str:
        return f"at most {self.tokens} tokens, {self.origin}"


class PreparedLength(CommandConfig):
    """What options have in common whose ``--max-length`` is by default that of the prepared data."""

    if TYPE_CHECKING:
        max_length: int | None

    def data_with_length(self) -> Sequence[Path]:
        """The data sets whose preparation settles the length; one that was prepared without counts as the default."""
        raise NotImplementedError

    def data_beside(self) -> Sequence[Path]:
        """Data sets whose length counts too, but only where their preparation has one."""
        return ()

    @property
    def longest(self) -> int:
        """The longest sequence in tokens; that of the data only in options that :meth:`settled` gave."""
        return DEFAULT_LENGTH if self.max_length is None else self.max_length

    def length(self) -> Length:
        """The longest sequence, and where it is from. Reads the manifests of the data sets if the option is not given.

        Data that is not there or is damaged counts as prepared without a length; whoever reads its rows says so.
        """
        if self.max_length is not None:
            return Length(self.max_length, "by --max-length")
        own = [(path, _length_of(path)) for path in self.data_with_length()]
        beside = [(path, tokens) for path in self.data_beside() if (tokens := _length_of(path)) is not None]
        tokens, path = max(
            ((DEFAULT_LENGTH if tokens is None else tokens, path) for path, tokens in [*own, *beside]),
            key=lambda each: each[0],
            default=(DEFAULT_LENGTH, None),
        )
        without = next((path for path, found in own if found is None), None)
        if path is None or (tokens == DEFAULT_LENGTH and without is not None):
            return Length(tokens, "the default" if without is None else f"the default: '{without}' has no length")
        return Length(tokens, f"as '{path}' was prepared", is_prepared=True)

    def settled(self) -> Self:
        """The same options with the longest sequence filled in, where they read data at all."""
        if self.max_length is not None or not [*self.data_with_length(), *self.data_beside()]:
            return self
        return self.model_copy(update={"max_length": self.length().tokens})

    def differences(self, recorded: Mapping[str, Any]) -> list[str]:
        """As for every command; a length that is not given is compared as the data has it now."""
        if self.max_length is not None:
            return super().differences(recorded)
        data = self.data_with_length()
        if data and all(path.exists() for path in data):
            return self.settled().differences(recorded)
        # There is no data, or it is gone: whether it had another length, its fingerprint tells when it is made again.
        return super().differences({**recorded, "max_length": None})


def _length_of(path: Path) -> int | None:
    """The length in tokens that a data set was prepared with; None without one, or where no manifest can be read."""
    from data_registry.core.errors import OgpsaError
    from data_registry.core.manifest import is_artifact, read_manifest

    try:
        found = read_manifest(path).config.get("max_length") if is_artifact(path) else None
    except OgpsaError:
        return None
    # Configurations are JSON that somebody may have edited; true would count as a number.
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 2 else None
