"""Principal weights: the size of each weight in the best approximation of its matrix by one of low rank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipelines.core.progress import Progress
from pipelines.masks.parameters import Parameter
from pipelines.weights.stored import BLOCK_ELEMENTS, Checkpoint, check_finite
from pipelines.weights.writing import MAX_FILE_BYTES, Layout, PlannedTensor, ShardedFiles

STEM = "scores"


def write_principal_scores(checkpoint: Checkpoint, parameters: Sequence[Parameter], rank: int, folder: Path) -> None:
    """Write the scores as ``[1, n_t]`` float32 rows by parameter; one matrix is held at a time.

    What is no matrix, and no stack of matrices, has no low-rank part: its scores are 0.

    Args:
        checkpoint: the model.
        parameters: the parameters, in canonical order.
        rank: the rank of the approximation.
        folder: the folder that is made for the rows.

    Source:
        LIFT (arXiv 2506.00772): the largest weights after low-rank approximation. Differs: by one threshold for all
        matrices unless the scope is a tensor, and embeddings take part unless they are excluded.
    """
    folder.mkdir()
    plan = [PlannedTensor(each.name, torch.float32, (1, each.numel)) for each in parameters]
    with (
        ShardedFiles(folder, plan, MAX_FILE_BYTES, Layout(STEM)) as files,
        Progress("low-rank parts", total=len(plan), unit="tensors") as progress,
    ):
        for parameter in parameters:
            files.begin(parameter.name, torch.float32, (1, parameter.numel))
            for matrix in _matrices(checkpoint, parameter):
                for block in low_rank_part(matrix, rank):
                    files.write(block.abs_())
            if len(parameter.shape) not in (2, 3):
                files.write(torch.zeros(parameter.numel))
            progress.advance()


def _matrices(checkpoint: Checkpoint, parameter: Parameter) -> list[Tensor]:
    if len(parameter.shape) not in (2, 3):
        return []
    stored = checkpoint.need(parameter.name, parameter.shape)
    weights = stored.read().float()
    check_finite(weights, stored)
    return [weights] if weights.dim() == 2 else list(weights)


def low_rank_part(matrix: Tensor, rank: int) -> list[Tensor]:
    """The best approximation of a matrix by one of a rank, in blocks of rows.

    Args:
        matrix: ``[m, n]`` float32.
        rank: the rank r; a matrix of no higher rank is given back as it is.

    Returns:
        ``[rows, n]`` float32 blocks. They come from the eigenvectors of the smaller Gram matrix in float64: right
        singular vectors V where n <= m, W V V^T, and left ones U otherwise, U U^T W.
    """
    rows = max(1, BLOCK_ELEMENTS // max(1, matrix.shape[1]))
    if rank >= min(matrix.shape):
        return [block.clone() for block in matrix.split(rows)]
    wide = matrix.shape[0] < matrix.shape[1]
    side = min(matrix.shape)
    gram = torch.zeros(side, side, dtype=torch.float64)
    for part in matrix.split(max(1, BLOCK_ELEMENTS // side), dim=1 if wide else 0):
        double = part.double()
        gram += double @ double.T if wide else double.T @ double
    vectors = torch.linalg.eigh(gram)[1][:, -rank:].float()
    if wide:
        core = vectors.T @ matrix
        return [block @ core for block in vectors.split(rows)]
    return [(block @ vectors) @ vectors.T for block in matrix.split(rows)]
