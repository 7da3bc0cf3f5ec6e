"""Batches of rows of unlike length, padded on the right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.tokens.labels import IGNORED
from pipelines.tokens.pairs import SIDES, Pair

if TYPE_CHECKING:
    from torch import Tensor


def collate_pairs(pairs: Sequence[Pair], pad_token_id: int, sides: Sequence[str] = SIDES) -> dict[str, Tensor]:
    """A padded batch of B pairs, all completions of one side after the other, the chosen ones first.

    Returns:
        ``input_ids``, ``attention_mask``, ``labels`` (``IGNORED`` outside the completions), each ``[S B, L]`` int64 for
        S sides; and ``ref_chosen_logps``, ``ref_rejected_logps`` ``[B]`` float32 where the pairs have them.
    """
    import torch

    batch = collate_completions(
        [(pair["prompt_ids"], pair[f"{side}_ids"]) for side in sides for pair in pairs], pad_token_id
    )
    for side in SIDES:
        if f"ref_{side}_logps" in pairs[0]:
            batch[f"ref_{side}_logps"] = torch.tensor([pair[f"ref_{side}_logps"] for pair in pairs])
    return batch


def collate_completions(rows: Sequence[tuple[Sequence[int], Sequence[int]]], pad_token_id: int) -> dict[str, Tensor]:
    """A padded batch of B prompts with their completions.

    Returns:
        ``input_ids``, ``attention_mask``, ``labels`` (``IGNORED`` outside the completions), each ``[B, L]`` int64.
    """
    import torch

    length = max(len(prompt) + len(completion) for prompt, completion in rows)
    ids = torch.full((len(rows), length), pad_token_id)
    labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
    for index, (prompt, completion) in enumerate(rows):
        stop = len(prompt) + len(completion)
        ids[index, :stop] = torch.tensor([*prompt, *completion])
        labels[index, len(prompt) : stop] = torch.tensor(completion)
        mask[index, :stop] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
