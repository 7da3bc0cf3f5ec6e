"""Weights of tokens beside the rows: put where their tokens are, padded with them, refused where they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from data_registry.core.errors import ArtifactError
from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from pipelines.training.data.weighting import (
    REFERENCE,
    TOKEN_WEIGHTS,
    WeightingCollator,
    counted_labels,
    unweighted_rows,
    weighted_pairs,
    weighted_rows,
)
from pipelines.training.every_row import stand_in_row
from tests.training.small_token_weights import store

# Two answers in the first row; and a row whose first token is labelled, which no loss sees.
ROWS = [
    {"input_ids": [1, 2, 3, 4, 5, 6], "labels": [-100, 2, -100, 4, 5, -100]},
    {"input_ids": [7, 8, 9], "labels": [7, -100, 9]},
    {"input_ids": [1, 2], "labels": [-100, 2]},
]
ANSWERS = [([2, 4, 5], [1.0, 0.0, 0.5]), ([9], [0.25]), ([2], [0.0])]
BESIDE = [[0.0, 1.0, 0.0, 0.0, 0.5, 0.0], [0.0, 0.0, 0.25], [0.0, 0.0]]
PAIRS = [
    {"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5, 6]},
    {"prompt_ids": [1], "chosen_ids": [7, 8], "rejected_ids": [9]},
]


def sft(path: Path, **options: Any) -> TrainSftConfig:
    return TrainSftConfig(model="m", data=["d"], out="o", token_weights=path, **options)


def dpo(path: Path) -> TrainDpoConfig:
    return TrainDpoConfig(model="m", data=["d"], out="o", token_weights=path)


def test_weights_stand_at_the_tokens_they_are_for(tmp_path: Path) -> None:
    rows = weighted_rows(sft(store(tmp_path / "w", {"answer": ANSWERS})), datasets.Dataset.from_list(ROWS))
    assert rows[TOKEN_WEIGHTS][:] == BESIDE
    assert rows["labels"][:] == [row["labels"] for row in ROWS]
    ones = unweighted_rows(datasets.Dataset.from_list(ROWS))[TOKEN_WEIGHTS][:]
    assert ones == [[0.0, 1.0, 0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0]]
    batch = WeightingCollator(DataCollatorForLanguageModeling(0))(rows.to_list())
    assert batch[TOKEN_WEIGHTS].tolist() == [row + [0.0] * (6 - len(row)) for row in BESIDE]
    assert counted_labels(batch)[:, 1:].tolist() == [
        [2, -100, -100, 5, -100], [-100, 9, -100, -100, -100], [-100] * 5,
    ]  # fmt: skip
    joined = WeightingCollator(DataCollatorForLanguageModeling(0, padding_free=True))
    assert joined(rows.to_list())[TOKEN_WEIGHTS].tolist() == [[weight for row in BESIDE for weight in row]]
    joined.padding_free = False
    assert joined(rows.to_list())[TOKEN_WEIGHTS].tolist() == batch[TOKEN_WEIGHTS].tolist()


def test_a_side_without_weights_counts_whole(tmp_path: Path) -> None:
    rejected = [([4, 5, 6], [0.5, 0.0, 2.0]), ([9], [0.0])]
    pairs = weighted_pairs(dpo(store(tmp_path / "w", {"rejected": rejected})), PAIRS)
    assert [pair["chosen_weights"] for pair in pairs] == [[1.0], [1.0, 1.0]]
    assert [pair["rejected_weights"] for pair in pairs] == [[0.5, 0.0, 2.0], [0.0]]
    pairs = [{**pair, REFERENCE: [-1.0] * len(pair["rejected_ids"])} for pair in pairs]
    batch = WeightingCollator(DataCollatorForPreference(0))(pairs)
    assert batch[TOKEN_WEIGHTS].dtype == torch.float32
    assert batch[TOKEN_WEIGHTS].tolist() == [
        [0, 0, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0.5, 0, 2], [0, 0, 0, 0, 0],
    ]  # fmt: skip
    assert batch[REFERENCE].tolist() == [[0, 0, -1, -1, -1], [0, -1, 0, 0, 0]]
    plain = WeightingCollator(DataCollatorForPreference(0))(PAIRS)
    assert TOKEN_WEIGHTS not in plain
    assert REFERENCE not in plain


def test_stand_ins_have_what_rows_have() -> None:
    row = unweighted_rows(datasets.Dataset.from_list(ROWS))[0]
    batch = WeightingCollator(DataCollatorForLanguageModeling(0))([stand_in_row(row)])
    assert batch[TOKEN_WEIGHTS].tolist() == [[0.0, 0.0]]
    assert bool((counted_labels(batch) == -100).all())
    pair = {
        **PAIRS[0], "ref_chosen_logps": -1.0, "ref_rejected_logps": -2.0, "chosen_weights": [1.0],
        "rejected_weights": [0.5, 0.0, 2.0], REFERENCE: [-1.0, -1.0, -1.0],
    }  # fmt: skip
    batch = WeightingCollator(DataCollatorForPreference(0))([stand_in_row(pair)])
    assert batch[TOKEN_WEIGHTS].shape == batch["input_ids"].shape == (2, 2)
    assert batch[REFERENCE].shape == (1, 2)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([([2, 4, 5], [1.0, float("nan"), 1.0]), ([9], [1.0]), ([2], [1.0])], "is nan"),
        ([([2, 4, 5], [1.0, 1.0, 1.0]), ([9], [-0.5]), ([2], [1.0])], "is -0.5"),
        ([([2, 4, 5], [0.0, 0.0, 0.0]), ([9], [0.0]), ([2], [0.0])], "nothing is left to train"),
        ([([2, 4, 6], [1.0, 1.0, 1.0]), ([9], [1.0]), ([2], [1.0])], "token 3 of its answer is 6 there and 5 here"),
        ([([2, 4, 5], [1.0, 1.0, 1.0]), ([9], [1.0])], "for 2 rows"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(tmp_path: Path, answers: Any, said: str) -> None:
    path = store(tmp_path / "w", {"answer": answers})
    with pytest.raises(ArtifactError, match=said):
        weighted_rows(sft(path), datasets.Dataset.from_list(ROWS))


def test_weights_of_the_other_task_are_refused(tmp_path: Path) -> None:
    path = store(tmp_path / "w", {"answer": ANSWERS})
    with pytest.raises(ArtifactError, match="no weights of the side 'chosen', only of answer"):
        weighted_pairs(dpo(path), PAIRS)
