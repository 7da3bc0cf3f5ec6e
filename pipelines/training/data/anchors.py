"""Anchor rows: read from samples or prepared data, with what the starting model made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from data_registry.core.errors import ConfigError, InputError
from data_registry.prepared import SAMPLES, load_prepared
from pipelines.configs.train import TrainConfig
from pipelines.passes.distributions import TopLogProbs, places_of
from pipelines.samples.states import StoredStates
from pipelines.samples.storage import LOG_PROBS_FILE, Sample, StoredLogProbs
from pipelines.samples.tokens import training_tokens
from pipelines.tokens.conversations import encode_dataset
from pipelines.tokens.fitting import Bounds, check_token_ids, rows_that_fit


@dataclass(frozen=True)
class AnchorRow:
    """A row in tokens, cut to the longest sequence.

    Attributes:
        ids: the token ids.
        labels: the token id where a token is counted, ``IGNORED`` elsewhere.
        start: what the starting model expected at the places before labelled tokens; None where it is not known.
        states: the starting model's states at all positions; None where they are not needed.
    """

    ids: list[int]
    labels: list[int]
    start: TopLogProbs | None = None
    states: Tensor | None = None

    @property
    def places(self) -> list[int]:
        """The positions whose logits predict a labelled token."""
        return places_of(self.labels)


class AnchorRows:
    """The rows of one set of an anchor, read as they are needed.

    Args:
        path: the set.
        kind: ``"kl"``, ``"ce"`` or ``"hidden"``.
        config: the options of the command.
        tokenizer: the tokenizer that training uses.
        bounds: what the rows must keep to.

    Raises:
        ConfigError: ``--anchor-kind kl`` has no samples with log-probabilities, or samples of other tokens.
        InputError: the data cannot be read, have no row that is short enough, or do not fit the model.
    """

    def __init__(self, path: Path, kind: str, config: TrainConfig, tokenizer: Any, bounds: Bounds) -> None:
        dataset, manifest = load_prepared(path, task="sft")
        self.path = path
        self._stored: StoredLogProbs | None = None
        self._states: tuple[StoredStates, int] | None = None
        if manifest.kind == SAMPLES:
            samples = [
                Sample(row["messages"], row["prompt_row"], row["sample"], row["finish"], row["num_tokens"])
                for row in dataset
            ]
            self._tokens = [(list(ids), list(labels)) for ids, labels in training_tokens(samples, tokenizer)]
        else:
            rows = encode_dataset(dataset, tokenizer, None, name="anchor rows")
            self._tokens = [(row["input_ids"], row["labels"]) for row in rows]
        self._open_log_probs(config.model, manifest.kind, kind)
        self._length = config.longest
        lengths = [len(ids) if bounds.drop_too_long else min(len(ids), self._length) for ids, _ in self._tokens]
        kept = rows_that_fit(lengths, bounds, name="anchor rows")
        fitting = range(len(lengths)) if kept is None else kept
        cut = (self._tokens[number][0][: self._length] for number in fitting)
        check_token_ids(cut, bounds.limits.num_embeddings, tokenizer)
        self._usable = [number for number in fitting if places_of(self._tokens[number][1][: self._length])]
        if len(self._usable) < len(fitting):
            bounds.leave_out("anchor rows whose answer begins beyond --max-length", len(fitting) - len(self._usable))
        if not self._usable:
            raise InputError(f"no row of '{path}' has a token of an answer within --max-length {config.longest}")

    def _open_log_probs(self, model: str, made_as: str, kind: str) -> None:
        if kind == "kl" and made_as != SAMPLES:
            raise ConfigError(
                f"--anchor-kind kl needs the model's own answers, and '{self.path}' is a {made_as}",
                fix=f"ogpsa sample {model} --data {self.path} --log-probs 64 --out DIR, and --anchor DIR",
            )
        if kind != "kl" and not (self.path / LOG_PROBS_FILE).is_file():
            return
        stored = StoredLogProbs(self.path)
        ours = [ids[place + 1] for ids, labels in self._tokens for place in places_of(labels)]
        if stored.tokens.tolist() == ours:
            self._stored = stored
        elif kind == "kl":
            raise ConfigError(
                f"the samples in '{self.path}' were made with another tokenizer or chat template than this model's",
                fix=f"ogpsa sample {model} --data DATA --log-probs 64 --out DIR",
            )

    def __len__(self) -> int:
        return len(self._usable)

    @property
    def knows_start(self) -> bool:
        """Whether there is what the starting model expected at the places."""
        return self._stored is not None

    def token_ids(self) -> list[list[int]]:
        """The token ids of all rows."""
        return [self._tokens[number][0][: self._length] for number in self._usable]

    def hold(self, states: StoredStates, first: int) -> None:
        """Take the starting model's states of the rows; those of the first row have the number ``first``."""
        self._states = (states, first)

    def num_places(self, index: int) -> int:
        """The number of places of a row."""
        return len(places_of(self._tokens[self._usable[index]][1][: self._length]))

    def num_positions(self, index: int) -> int:
        """The number of positions of a row."""
        return min(len(self._tokens[self._usable[index]][0]), self._length)

    def __getitem__(self, index: int) -> AnchorRow:
        number = self._usable[index]
        ids, labels = (part[: self._length] for part in self._tokens[number])
        start = None
        if self._stored is not None:
            whole, kept = self._stored.row(number), len(places_of(labels))
            start = TopLogProbs(whole.ids[:kept], whole.log_probs[:kept], whole.rest[:kept])
        states = None
        if self._states is not None:
            stored, first = self._states
            states = stored.row(first + index)
        return AnchorRow(ids, labels, start, states)


def part_of(rows: Sequence[Any], slot: int, num_slots: int) -> tuple[list[Any], float]:
    """One forward pass's share of a step's rows, and its weight.

    Every pass needs a row, so that all ranks make the same passes: one without a share gets the first row with weight
    0.
    """
    mine = list(rows[slot::num_slots])
    return (mine, 1.0) if mine else ([rows[0]], 0.0)
