"""Tokens of wrong answers: a model that still makes mistakes, its graded answers, and a rewriter that corrects them.

Each step is a command: ``sample --grade``, ``prepare-data --format samples``, ``--format rewrite``, ``train-sft`` and
``score-tokens``. Which tokens are wrong is known here: those that the edit rule finds against the right answer.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy import stats

from benchmarks.studies.tradeoff.materials import made
from data_registry.testbed.pools import Row, sft_row
from data_registry.testbed.skills import SKILLS
from data_registry.testbed.world import generate_world
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.configs.sample import SampleConfig
from pipelines.configs.score_tokens import ScoreTokensConfig
from pipelines.configs.train import TrainSftConfig
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.making import Wanted, make
from pipelines.token_weights.description import KIND, read_description
from pipelines.token_weights.making import find_sources, make_token_weights, token_weights_inputs
from pipelines.token_weights.storage import FILE, WeightedAnswer, write_token_weights
from pipelines.training.pretraining import retrain

ASKED: Final = ("add", "sort", "reverse", "count", "fact", "translate")
EARLY_STEPS: Final = 600
"""Steps of pretraining, of 1,800, after which the model answers most requests and still makes mistakes."""
PER_SKILL: Final = 60
_MAX_LENGTH: Final = 128
_PAIR_LENGTH: Final = 64


class TokenMaterials:
    """What is made for one world, each by its command.

    Args:
        work: the directory of the whole study.
        world: the seed of the world.
        steps: steps of pretraining.
        per_skill: requests of each skill, for the rewriter and for the pairs each.
        rewriter_steps: steps of the rewriter's training.
    """

    def __init__(
        self, work: Path, world: int, *, steps: int = EARLY_STEPS, per_skill: int = PER_SKILL, rewriter_steps: int = 600
    ) -> None:
        self._world, self._steps, self._per_skill, self._rewriter_steps = world, steps, per_skill, rewriter_steps
        self._folder = work / "tokens" / f"world-{world}"

    @property
    def model(self) -> Path:
        """The model whose pretraining was stopped early."""
        place = self._folder / "model"
        if not place.exists():
            aside = place.with_name(f"model.{os.getpid()}")
            retrain(aside, seed=self._world, world_seed=self._world, steps=self._steps)
            aside.rename(place)
        return place

    def pairs(self, part: str) -> Path:
        """Pairs of a right and a wrong answer of the model: of the part ``rewriter`` or ``train``."""
        samples = self._folder / f"samples-{part}"
        made("sample", SampleConfig(
            model=str(self.model), data=self._requests(part), out=samples, num_procs=1, max_new_tokens=24,
            batch_size=256, answers=10, temperature=0.7, top_p=0.95, grade="exact",
        ))  # fmt: skip
        out = self._folder / f"pairs-{part}"
        made("prepare_data", PrepareDataConfig(
            source=str(samples), format="samples", missing="gold", out=out, seed=42
        ))  # fmt: skip
        return out

    @property
    def rewriter(self) -> Path:
        """A copy of the model that was trained to correct wrong answers."""
        data, out = self._folder / "rewrites", self._folder / "rewriter"
        columns = {"question": "prompt", "solution": "reference", "prediction": "rejected", "correction": "chosen"}
        made("prepare_data", PrepareDataConfig(
            source=str(self.pairs("rewriter")), format="rewrite", task="sft", columns=columns, out=data
        ))  # fmt: skip
        made("train_sft", TrainSftConfig(
            model=str(self.model), data=[data], out=out, num_procs=1, precision="fp32", batch_size=16, accumulation=1,
            max_steps=self._rewriter_steps, learning_rate=1e-3, warmup_steps=0.1, max_length=_MAX_LENGTH, save_every=0,
            log_every=50, seed=0,
        ))  # fmt: skip
        return out

    def weights(self, rule: str, **options: Any) -> Path:
        """Token weights of the wrong answers to train on, by a rule of score-tokens.

        The rule ``random`` is ours: as many tokens of each answer as the edit rule finds, drawn from all of them.
        """
        words = "-".join([rule, *map(str, options.values())])
        out = self._folder / f"weights-{words}"
        model = self.rewriter if rule == "rewriter" else self.model
        given = {"model": str(model), "data": self.pairs("train"), "rule": "edit" if rule == "random" else rule,
                 "max_length": _PAIR_LENGTH, "num_procs": 1, "out": out, **options}  # fmt: skip
        if rule == "random":
            shuffle(ScoreTokensConfig.model_validate(given))
            return out
        if rule != "edit":
            given["batch_size"] = 64
        made("score_tokens", ScoreTokensConfig.model_validate(given))
        return out

    def _requests(self, part: str) -> Path:
        rng = random.Random(f"ogpsa study of tokens {part} {self._world}")
        world = generate_world(self._world)
        rows: dict[str, Row] = {}
        for skill in ASKED:
            wanted = len(rows) + self._per_skill
            for _ in range(100 * self._per_skill):
                example = SKILLS[skill].draw(world, rng, "train")
                rows.setdefault(example.prompt, sft_row(example.prompt, example.answer))
                if len(rows) == wanted:
                    break
        out = self._folder / f"requests-{part}"
        if not out.exists():
            file = out.with_name(f"{out.name}.jsonl")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(json.dumps(row) + "\n" for row in rows.values()), encoding="utf-8")
            made("prepare_data", PrepareDataConfig(source=str(file), out=out))
        return out


def shuffle(config: ScoreTokensConfig) -> None:
    """Make token weights whose weights are those of ``config``, in another order within each answer."""
    sources = find_sources(config)

    def write(writer: ArtifactWriter) -> None:
        make_token_weights(config, sources, torch.device("cpu"), writer)
        generator = np.random.default_rng(0)
        answers = [
            WeightedAnswer(
                line["row"], line["side"], line["ids"], np.array(line["score"], np.float32),
                generator.permutation(np.array(line["weight"], np.float32)),
            )
            for line in pq.read_table(writer.path / FILE).to_pylist()
        ]  # fmt: skip
        write_token_weights(writer.path, read_description(writer.path), answers)

    make(Wanted(config.out, KIND, config, token_weights_inputs(config, sources)), write)


def token_scores(materials: TokenMaterials, world: int) -> list[dict[str, Any]]:
    """Each token of each wrong answer: whether it is wrong by the edit rule, and the rewriter's probability of it."""
    truth, scored = (
        pq.read_table(folder / "token-weights.parquet").to_pylist()
        for folder in (materials.weights("edit"), materials.weights("rewriter", map="probability"))
    )
    return [
        {"world": world, "row": first["row"], "place": place, "wrong": bool(wrong), "probability": float(score)}
        for first, second in zip(truth, scored, strict=True)
        for place, (wrong, score) in enumerate(zip(first["score"], second["score"], strict=True))
    ]


def area_under_curve(scores: Sequence[float], truth: Sequence[bool]) -> float:
    """The chance that a token that is wrong has a higher score than one that is not; ties count half.

    Raises:
        ValueError: all tokens are of one kind.
    """
    values, wrong = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=bool)
    positives, negatives = int(wrong.sum()), int((~wrong).sum())
    if not positives or not negatives:
        raise ValueError("a curve needs tokens of both kinds")
    ranks = stats.rankdata(values)
    return float((ranks[wrong].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def write_scores(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Keep the scores of tokens as Parquet."""
    table = pa.Table.from_pylist(list(rows))
    place = table.schema.get_field_index("probability")
    table = table.set_column(place, "probability", table["probability"].cast(pa.float32()))
    pq.write_table(table, file, compression="zstd", compression_level=19)
