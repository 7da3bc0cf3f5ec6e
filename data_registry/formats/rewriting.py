"""What a rewriter is asked: a model that turns a wrong answer into a right one with as few changes as possible.

Training data of a rewriter (the format ``rewrite``) and the rule of ``score-tokens`` that asks one take the prompt from
here, so that a rewriter is asked what it was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from data_registry.schema import Message

# Short, because a rewriter reads the solution and the answer beside the question within its positions.
_TASK: Final = (
    "The solution is right and the answer below it is wrong. Write the answer again so that it is right, with as few "
    "changes as possible: keep every right part and the way in which it states its result."
)


def rewriter_prompt(question: str, solution: str, prediction: str) -> str:
    """The message of the user that asks a rewriter to correct an answer.

    White space around the three texts is left out, so that the prompt does not depend on it.

    Args:
        question: what was asked.
        solution: a right solution of it.
        prediction: the wrong answer that is to be corrected.
    """
    parts = {"Question": question, "Right solution": solution, "Wrong answer": prediction}
    texts = [f"{name}:\n{text.strip()}" for name, text in parts.items()]
    return "\n\n".join([_TASK, *texts, "The wrong answer, corrected:"])


def question_text(prompt: Sequence[Message]) -> str:
    """The conversation before an answer as the text that stands for the question in :func:`rewriter_prompt`.

    A single message of the user is its own text; of several messages each has its role before it.
    """
    if len(prompt) == 1:
        return prompt[0]["content"].strip()
    return "\n\n".join(f"{entry['role'].capitalize()}: {entry['content'].strip()}" for entry in prompt)
