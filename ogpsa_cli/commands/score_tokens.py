"""``ogpsa score-tokens``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

    from pipelines.configs.score_tokens import ScoreTokensConfig
    from pipelines.token_weights.description import ShownAnswer, TokenWeightsDescription

_SHOWN = 3


def execute(config: ScoreTokensConfig) -> int:
    """Score the tokens and show the first answers."""
    from ogpsa_cli import console
    from pipelines.commands import score_tokens
    from pipelines.token_weights.description import read_description

    result = score_tokens.run(config)
    description = read_description(result.path)
    show_answers(description, _SHOWN)
    command = "train-sft" if description.sides == ["answer"] else "train-dpo"
    then = ["ogpsa", command, "MODEL", "--data", str(config.data), "--token-weights", str(result.path), "--out", "RUN"]
    details = console.summary_lines(result.manifest.summary)
    console.finished("token weights", result, console.command_text(then), details=details)
    return 0


def show_answers(description: TokenWeightsDescription, number: int) -> None:
    """Print the first answers as text, with the tokens marked whose weight is at least half of the largest one."""
    from rich.text import Text

    from ogpsa_cli import console

    answers = description.first[:number]
    largest = max((piece.weight for answer in answers for piece in answer.pieces), default=0.0)
    how = "in green" if console.is_terminal() else "in «»"
    which = "the first answer" if len(answers) == 1 else f"the first {len(answers)} answers"
    console.show(Text(f"{which}; tokens that count {how}:", style="bold"))
    for answer in answers:
        console.show(_line(answer, largest / 2))


def _line(answer: ShownAnswer, least: float) -> Text:
    from rich.text import Text

    from data_registry.core.visible import visible
    from ogpsa_cli import console

    spans: list[tuple[str, bool]] = []
    for piece in answer.pieces:
        counts = piece.weight > 0 and piece.weight >= least
        text = visible(piece.text, block=True)
        if spans and spans[-1][1] is counts:
            spans[-1] = (spans[-1][0] + text, counts)
        else:
            spans.append((text, counts))
    head = (f"row {answer.row}, {answer.side}: ", "dim")
    rest = (f" ... and {answer.num_more} tokens more" if answer.num_more else "", "dim")
    if console.is_terminal():
        return Text.assemble(head, *((text, "green" if counts else "") for text, counts in spans), rest)
    return Text.assemble(head, *(f"«{text}»" if counts else text for text, counts in spans), rest)
