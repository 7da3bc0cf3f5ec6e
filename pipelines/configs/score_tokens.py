"""Options of ``ogpsa score-tokens``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final, Literal

from pipelines.configs.common import DROP_TOO_LONG_HELP, EngineConfig, OutputConfig, ZeroStage
from pipelines.configs.lengths import MAX_LENGTH_HELP, PreparedLength
from pipelines.core.config import option

RuleName = Literal["rewriter", "logprob", "ratio", "edit"]
MapName = Literal["below", "probability", "complement", "clip", "top"]
SideName = Literal["answer", "chosen", "rejected"]
SIDES_OF: Final[Mapping[str, tuple[SideName, ...]]] = {"sft": ("answer",), "preference": ("rejected", "chosen")}
"""The sides of the rows for a task; the first one has weights where none is named."""
_OF_PROBABILITIES: Final = ("probability", "complement", "clip")


class ScoreTokensConfig(PreparedLength, OutputConfig, EngineConfig):
    """Say for every token of answers how much it counts in training: by a rule that scores it, and a map of scores."""

    examples: ClassVar[Sequence[str]] = (
        "ogpsa score-tokens runs/rewriter --data data/pairs --out weights/unaligned",
        "ogpsa score-tokens MODEL --data data/pairs --rule edit --out weights/edited",
        "ogpsa score-tokens runs/oracle --against MODEL --data data/pairs --rule ratio --map top --top 0.3 "
        "--side chosen --order most --out weights/chosen",
    )

    model: str = option(
        ...,
        "Model that gives scores: a directory, a hub id, or a run of ogpsa. Its tokenizer has to be that of training.",
        positional=True,
        runtime=True,
    )
    data: Path = option(..., "Prepared data set whose answers are scored.", short="d", runtime=True)
    side: list[SideName] = option(
        [],
        "Whose tokens: rejected or chosen of preference pairs, answer of rows for SFT; repeat for several. By default "
        "rejected, or answer.",
    )
    max_length: int | None = option(None, MAX_LENGTH_HELP, ge=2)
    drop_too_long: bool = option(False, DROP_TOO_LONG_HELP)

    rule: RuleName = option(
        "rewriter",
        "rewriter: the probability of the token when MODEL, trained to correct answers, is asked to correct this one. "
        "logprob: its log-probability by MODEL. ratio: that minus the one by --against. edit: 1 where the token "
        "differs from the right answer, 0 elsewhere; no model is asked.",
        panel="Score",
    )
    against: str | None = option(
        None, "Model whose log-probabilities are subtracted; its tokenizer has to be that of MODEL.", panel="Score",
        runtime=True, needs="rule=ratio",
    )  # fmt: skip
    batch_size: int = option(
        4, "Answers of one forward pass, per process.", panel="Score", short="b", runtime=True, needs="rule!=edit", ge=1
    )

    map: MapName = option(
        "below",
        "below: 1 for scores below --threshold, 0 for others. top: 1 for the share --top of each answer. probability: "
        "the probability itself, which is what ALLO's released code computes and weighs the other tokens. complement: "
        "1 - probability. clip: 0.5 - probability, within 0 and 0.1.",
        panel="Weight",
        needs="rule!=edit",
        off="below",
    )
    threshold: float | None = option(
        None, "Threshold of below: a probability, by default 0.5; of ratio a difference in nats, by default 0.",
        panel="Weight", needs=("map=below", "rule!=edit"),
    )  # fmt: skip
    top: float = option(
        0.3, "Share of each answer's tokens that count, at least one.", panel="Weight", needs="map=top", gt=0, le=1
    )
    order: Literal["most", "least"] = option(
        "least", "most: the tokens with the highest scores count. least: those with the lowest.", panel="Weight",
        needs="map=top",
    )  # fmt: skip

    zero: ZeroStage | None = option(
        None,
        "DeepSpeed ZeRO stage, 0 to 3. By default none: a single process, or a copy of the model in each.",
        panel="Processes",
        needs="rule!=edit",
    )
    deepspeed: Path | None = option(
        None, "A DeepSpeed JSON file of your own, instead of --zero and --offload.", panel="Processes", runtime=True,
        needs="rule!=edit",
    )  # fmt: skip

    def data_with_length(self) -> list[Path]:
        """The data set whose answers are scored."""
        return [self.data]

    @property
    def asks_model(self) -> bool:
        """Whether the rule needs passes through a model."""
        return self.rule != "edit"

    @property
    def bound(self) -> float:
        """The threshold that is used."""
        if self.threshold is not None:
            return self.threshold
        return 0.0 if self.rule == "ratio" else 0.5

    def problems(self) -> list[str]:
        """What is missing, and what contradicts each other."""
        problems = [*super().problems()]
        if self.rule == "ratio" and self.against is None:
            problems.append("--rule ratio needs --against MODEL, the model whose log-probabilities are subtracted")
        if self.rule == "ratio" and self.map in _OF_PROBABILITIES:
            problems.append(
                f"--map {self.map} takes probabilities, and --rule ratio gives differences: use below or top"
            )
        if self.threshold is not None and self.rule != "ratio" and not 0 < self.threshold <= 1:
            problems.append(f"--threshold {self.threshold:g} is no probability: it must be above 0 and at most 1")
        twice = sorted({side for side in self.side if self.side.count(side) > 1})
        if twice:
            problems.append(f"--side {twice[0]} is given twice")
        return problems
