"""Whether what was stored is what was read: answers, log-probabilities, and text through the tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from data_registry.core.errors import InputError
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from pipelines.tokens.tokenizer import load_source_tokenizer

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pipelines.importing.gguf import Imported

TEXTS: Final = (
    "In 1984, 3.14159 and 1,234,567 met  42 at 007.",
    "def area(r: float) -> float:\n    return 3.14 * r**2\t# a comment\n\n\n    pass\r\n",
    "Zoë's naïve café costs €5; 東京は寒い, и 🙂🏽 too: ẞ, ﬁ, e\u0301, \u00a0, \u200b.",
    "  two before, two after  \n \n   ",
    "<b>tags</b> & {\"json\": [1, null, true]} \\n $x^2$ -- it's, they'll, I'D",
)
"""Text with digits, code, spaces and unicode, which tokenizers are wont to spoil."""
PROMPTS: Final = ("What is the capital of France?", "Count from one to five.", "Write a line about the sea.")
MAX_NEW_TOKENS: Final = 24
LIMIT: Final = 1e-4
"""How far a log-probability may be off after storing: the same weights are read."""


@dataclass(frozen=True)
class Fidelity:
    """What came of the checks.

    Attributes:
        answers: greedy answers that are those of the file's own weights.
        prompts: how many were asked.
        log_probability: the largest difference of a log-probability of any token, at any place of the prompts, between
            what was stored and the file's own weights.
        texts: texts that decode to themselves after encoding.
        spoiled: those that do not, shortened.
    """

    answers: int
    prompts: int
    log_probability: float
    texts: int
    spoiled: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "equal_answers": f"{self.answers} of {self.prompts}",
            "largest_log_prob_difference": self.log_probability,
            "texts_unchanged_by_tokenizer": f"{self.texts} of {len(TEXTS)}",
        }


def check_tokenizer(imported: Imported) -> None:
    """Refuse a tokenizer whose vocabulary is not that of the file.

    Raises:
        InputError: a token id stands for another token, or the ids go beyond the embeddings.
    """
    tokens = imported.contents.tokens
    found = imported.tokenizer.convert_ids_to_tokens(list(range(len(tokens))))
    wrong = [index for index, (token, there) in enumerate(zip(tokens, found, strict=True)) if token != there]
    if wrong:
        raise InputError(
            f"transformers reads {len(wrong)} of {len(tokens)} tokens otherwise than the file has them",
            where=f"token {wrong[0]}: {tokens[wrong[0]]!r} became {found[wrong[0]]!r}",
            fix="import the original model from safetensors",
        )
    embeddings = imported.model.get_input_embeddings().weight.shape[0]
    if len(imported.tokenizer) > embeddings:
        raise InputError(f"the tokenizer has {len(imported.tokenizer)} tokens, and the model {embeddings} embeddings")


def compare(imported: Imported, directory: Path) -> Fidelity:
    """Read what was stored back, as every command does, and compare it with what was read from the GGUF file.

    Args:
        imported: the model as it was read.
        directory: where it was stored.

    Raises:
        InputError: what was stored does not load, cuts text otherwise, or predicts other tokens.
    """
    import torch

    source = resolve_model(str(directory))
    tokenizer = load_source_tokenizer(source)
    for text in TEXTS:
        if tokenizer(text).input_ids != imported.tokenizer(text).input_ids:
            raise InputError(f"the stored tokenizer cuts {text[:40]!r} otherwise than the imported one")
    after = load_model(source, precision="fp32")
    prompts = [_prompt(text, tokenizer) for text in PROMPTS]
    with torch.inference_mode():
        stored = _largest_difference(imported.model.float(), after, prompts)
        largest = _largest_difference(imported.original, after, prompts)
        equal = sum(_answer(imported.original, ids) == _answer(after, ids) for ids in prompts)
    if not stored <= LIMIT:
        raise InputError(
            f"the stored model predicts otherwise than what was stored: a log-probability is off by {stored:.3g}",
            fix="import the original model from safetensors",
        )
    kept = [tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text for text in TEXTS]
    spoiled = tuple(text[:30] for text, same in zip(TEXTS, kept, strict=True) if not same)
    return Fidelity(equal, len(prompts), largest, sum(kept), spoiled)


def _prompt(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    if not tokenizer.chat_template:
        return list(tokenizer(text).input_ids)
    messages = [{"role": "user", "content": text}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(rendered, add_special_tokens=False).input_ids)


def _largest_difference(one: PreTrainedModel, other: PreTrainedModel, prompts: list[list[int]]) -> float:
    return max((_log_probs(one, ids) - _log_probs(other, ids)).abs().max().item() for ids in prompts)


def _log_probs(model: PreTrainedModel, ids: list[int]) -> Tensor:
    """Log-probabilities, ``[positions, vocabulary]`` in float32."""
    import torch

    logits = model(input_ids=torch.tensor([ids])).logits[0]
    return torch.log_softmax(logits.float(), dim=-1)


def _answer(model: PreTrainedModel, ids: list[int]) -> list[int]:
    import torch

    asked = torch.tensor([ids])
    made = model.generate(asked, attention_mask=torch.ones_like(asked), max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
    return list(made[0].tolist())
