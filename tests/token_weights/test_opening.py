"""Token weights stored and opened: given out for the tokens that they were computed for, and for no others."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from data_registry.core.errors import ArtifactError, InputError
from pipelines.configs import tools
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.making import Wanted, make
from pipelines.token_weights.description import KIND, TokenWeightsDescription
from pipelines.token_weights.opening import TokenWeights, answer_tokens, open_token_weights
from pipelines.token_weights.storage import FILE, WeightedAnswer, write_token_weights

IDS = [[5, 6, 7], [8], [9, 10]]
WEIGHTS = [[1.0, 0.0, 0.5], [0.25], [0.0, 1.0]]


def stored(path: Path) -> TokenWeights:
    """Token weights of three rejected answers."""
    description = TokenWeightsDescription(
        rule="rewriter", map="below", threshold=0.5, top=None, order=None, sides=["rejected"], model="m", against=None,
        tokenizer_hash="a", template_hash="b", max_length=64, drop_too_long=False, num_rows=3, num_tokens=6,
        share_nonzero=4 / 6, score_quantiles={}, first=[],
    )  # fmt: skip

    def write(writer: ArtifactWriter) -> None:
        write_token_weights(
            writer.path,
            description,
            [
                WeightedAnswer(row, "rejected", ids, np.zeros(len(ids), np.float32), np.array(weights, np.float32))
                for row, (ids, weights) in enumerate(zip(IDS, WEIGHTS, strict=True))
            ],
        )

    make(Wanted(path, KIND, tools.TestbedConfig(out=path)), write)
    return open_token_weights(path)


def test_weights_come_back_for_the_tokens_they_are_for(tmp_path: Path) -> None:
    weights = stored(tmp_path / "weights")
    assert weights.sides == ("rejected",)
    assert weights.of_rows("rejected", IDS) == WEIGHTS
    assert weights.of_rows("rejected", [IDS[2], IDS[0]], rows=[2, 0]) == [WEIGHTS[2], WEIGHTS[0]]


@pytest.mark.parametrize(
    ("ids", "row", "said"),
    [
        ([[5, 6, 7], [8], [9, 11]], 2, "token 2 of its answer is 10 there and 11 here"),
        ([[5, 6, 7], [8, 2], [9, 10]], 1, "has 1 tokens there and 2 here"),
        ([[8], [5, 6, 7], [9, 10]], 0, "has 3 tokens there and 1 here"),
        ([[5, 6, 7], [9, 10]], 1, "for 3 rows with a side 'rejected', and training reads 2"),
        ([*IDS, [1]], 3, "for 3 rows with a side 'rejected', and training reads 4"),
    ],
)
def test_other_tokens_are_refused_by_row(tmp_path: Path, ids: list[list[int]], row: int, said: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        stored(tmp_path / "weights").of_rows("rejected", ids)
    assert said in caught.value.what
    assert caught.value.where is not None
    assert caught.value.where.startswith(f"row {row}, rejected; they were computed with --max-length 64")


def test_other_sides_and_rows_are_refused(tmp_path: Path) -> None:
    weights = stored(tmp_path / "weights")
    with pytest.raises(ArtifactError, match="no weights of the side 'chosen', only of rejected"):
        weights.of_rows("chosen", IDS)
    with pytest.raises(ArtifactError, match="training reads row 3"):
        weights.of_rows("rejected", [[8]], rows=[3])


def test_damage_and_other_artifacts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    stored(path)
    with pytest.raises(InputError, match="does not exist"):
        open_token_weights(tmp_path / "none")
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    (copy / FILE).write_bytes((path / FILE).read_bytes()[:-9])
    with pytest.raises(ArtifactError, match="does not verify"):
        open_token_weights(copy)


def test_the_tokens_of_an_answer_are_those_that_the_loss_sees() -> None:
    assert answer_tokens([7, -100, 8, -100, 9]) == [8, 9]
