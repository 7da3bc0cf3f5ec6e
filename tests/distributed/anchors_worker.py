"""Anchors and weights of tokens under every engine, in one launch: against plain PyTorch, however a step is cut."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from data_registry.prepared import load_prepared
from pipelines.commands import build_basis, sample, train_dpo, train_sft
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.sample import SampleConfig
from pipelines.configs.train import TrainConfig, TrainDpoConfig, TrainSftConfig
from pipelines.core.job import on_main, rank, world_size
from pipelines.engine import processes
from pipelines.tokens.pairs import SIDES
from pipelines.training.data.anchor_schedule import SharedSchedule, rows_per_step
from tests.distributed import worlds
from tests.distributed.equality_worker import CLIP, DECAY, ENGINES, EPS, LR, REFRESH, ROWS, STEPS
from tests.distributed.ranks import forget_engine, write_findings
from tests.reference import plain
from tests.training.small_token_weights import store

RATIO, WEIGHT, KEPT, SEED, BETA, MU = 0.4, 0.7, 20, 5, 0.2, 8.0
HIDDEN_WEIGHT = 8.0
SHARES = [0.7, 0.3]
# Of a rejected answer the tokens that count, where tokens have weights.
KEPT_REJECTED = 0.2
# How far the last token that counts is from the first that does not, in every answer: where this is within rounding,
# engines may choose differently, and no comparison of weights would mean anything.
GAPS: list[float] = []
CASES = [
    ("sft", "kl of two sets", ""), ("sft", "ce", ""), ("sft", "hidden and prompt", ""), ("dpo", "kl and prompt", ""),
    ("sft", "kl", "update"), ("sft", "kl and prompt", "gradient"), ("sft", "ce, prompt and weights", ""),
    ("dpo", "ce, prompt and weights", ""),
]  # fmt: skip


ANSWER = {"sft": "answer", "dpo": "rejected_ids"}


class World:
    def __init__(self, directory: Path) -> None:
        self.directory, self.model = directory, directory / "model"
        self.data = {"sft": directory / "data", "dpo": directory / "pairs"}
        self.pools = [directory / "alpha", directory / "beta"]
        self.samples, self.more = directory / "samples", directory / "more-samples"

    def make(self) -> None:
        worlds.make_model(self.model)
        worlds.make_data(self.data["sft"], STEPS * ROWS, seed=1)
        worlds.make_pairs(self.data["dpo"], STEPS * ROWS, seed=4)
        for seed, pool in enumerate(self.pools, start=2):
            worlds.make_data(pool, 9, seed=seed)
        worlds.make_data(self.directory / "general", 7, seed=9)
        worlds.make_data(self.directory / "more", 3, seed=10)
        for method, side in (("sft", "answer"), ("dpo", "rejected")):
            answers = [(row[ANSWER[method]], row["weights"]) for row in self.rows(method)]
            store(self.directory / f"weights-{method}", {side: answers})

    def rows(self, method: str) -> list[dict[str, Any]]:
        """The rows in tokens, with the weights of their answers: a third of these are 0, the others up to 1."""
        rows: list[dict[str, Any]] = (worlds.encoded if method == "sft" else worlds.encoded_pairs)(
            self.data[method], self.model
        )
        generator = torch.Generator().manual_seed(11)
        for row in rows:
            row["answer"] = [label for label in row.get("labels", []) if label != -100]
            number = len(row[ANSWER[method]])
            row["weights"] = (torch.randint(-2, 5, (number,), generator=generator) / 4).clamp(min=0).tolist()
        return rows

    def sample(self) -> None:
        for data, out in (("general", self.samples), ("more", self.more)):
            sample.run(
                SampleConfig(
                    model=str(self.model), data=self.directory / data, out=out, max_new_tokens=9, log_probs=KEPT
                )
            )

    def basis(self) -> Path:
        path = self.directory / "basis"
        forget_engine()
        build_basis.run(
            BuildBasisConfig(model=str(self.model), reference=self.pools, out=path, precision="fp32", batch_size=3)
        )
        return path

    def train(self, name: str, method: str, space: str, basis: Path | None, micro: int, **options: Any) -> Path:
        forget_engine()
        config_class: type[TrainConfig] = TrainSftConfig if method == "sft" else TrainDpoConfig
        if method == "dpo":
            options["beta"] = BETA
        if space:
            options |= {"basis": basis, "space": space, "refresh_every": REFRESH}
        config = config_class(
            model=str(self.model),
            data=self.data[method],
            out=self.directory / name.replace(" ", "-").replace(",", ""),
            precision="fp32",
            max_steps=STEPS,
            learning_rate=LR,
            weight_decay=DECAY,
            max_grad_norm=CLIP,
            schedule="constant",
            batch_size=micro,
            accumulation=ROWS // micro // world_size(),
            log_every=3,
            seed=SEED,
            trainer={"train_sampling_strategy": "sequential", "adam_epsilon": EPS},
            **options,
        )
        run = train_sft.run if method == "sft" else train_dpo.run
        path: Path = run(config).path
        return path

    def options(self, kind: str, method: str) -> dict[str, Any]:
        """The options of an anchor, and of weights."""
        options: dict[str, Any] = {"prompt_anchor": MU, "anchor_log_probs": KEPT} if "prompt" in kind else {}
        options |= {"anchor": self.samples, "anchor_kind": kind.split()[0].rstrip(",")}
        if "weights" in kind:
            options["token_weights"] = self.directory / f"weights-{method}"
            options |= {"normalise": "weight"} if method == "sft" else {"rejected_tokens": KEPT_REJECTED}
        options |= {"anchor_ratio": RATIO, "anchor_weight": HIDDEN_WEIGHT if "hidden" in kind else WEIGHT}
        if "sets" in kind:
            options |= {"anchor": [self.samples, self.more], "anchor_shares": SHARES}
        return options

    def anchor_rows(self, samples: Path) -> list[dict[str, list[int]]]:
        """The samples in tokens; where an answer was cut off, its end of turn is not counted."""
        rows = [dict(row) for row in worlds.encoded(samples, self.model)]
        for row, finish in zip(rows, load_prepared(samples)[0]["finish"], strict=True):
            last = max(index for index, label in enumerate(row["labels"]) if label != -100)
            row["labels"] = [
                -100 if index == last and finish == "length" else label for index, label in enumerate(row["labels"])
            ]
        return rows

    def plain(self, method: str, kind: str, space: str) -> dict[str, Tensor]:
        network = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        start = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        own = plain.mean_token_loss if method == "sft" else partial(_preference, start)
        if "weights" in kind:
            own = _weighted_tokens if method == "sft" else partial(_weighted_preference, start)
        sets = [self.anchor_rows(samples) for samples in (self.samples, self.more)[: 2 if "sets" in kind else 1]]
        held = PlainAnchor(start, sets, kind)
        plain.train(
            network,
            self.rows(method),
            [worlds.encoded(pool, self.model) for pool in self.pools] if space else [],
            steps=STEPS,
            rows_per_step=ROWS,
            lr=LR,
            weight_decay=DECAY,
            max_norm=CLIP,
            eps=EPS,
            refresh_every=REFRESH,
            space=space or "gradient",
            loss=lambda model, rows: own(model, rows) + held(model, rows),
        )
        return {name: p.detach() for name, p in network.named_parameters()}


class PlainAnchor:
    """The losses beside that of the rows, in one optimizer step after the other, with the starting model at hand."""

    def __init__(self, start: Any, sets: Sequence[Sequence[Any]], kind: str) -> None:
        self.start, self.sets, self.kind, self.step = start, sets, kind, 0
        sizes, number = [len(rows) for rows in sets], rows_per_step(ROWS, RATIO)
        self.schedule = SharedSchedule(sizes, SHARES[: len(sets)], number, SEED)
        states = [_states(start, row["input_ids"]).detach() for rows in sets for row in rows]
        self.mean_square = float(torch.cat(states).square().mean())

    def __call__(self, model: Any, safety: Sequence[Any]) -> Tensor:
        rows = [self.sets[which][number] for which, number in self.schedule.step(self.step)]
        self.step += 1
        total = torch.zeros((), dtype=torch.float64)
        if "hidden" in self.kind:
            total = total + HIDDEN_WEIGHT * self.hidden(model, rows)
        else:
            total = total + WEIGHT * self.at_answers(model, rows)
        return (total + MU * self.at_prompts(model, safety) if "prompt" in self.kind else total).float()

    def at_answers(self, model: Any, rows: Sequence[Any]) -> Tensor:
        values = []
        for row in rows:
            before, now = (_log_probs(each, row["input_ids"]) for each in (self.start, model))
            for place, label in enumerate(row["labels"][1:]):
                if label != -100:
                    values.append(
                        -now[place, label] if self.kind.startswith("ce") else _divergence(before[place], now[place])
                    )
        return torch.stack(values).mean()

    def at_prompts(self, model: Any, rows: Sequence[Any]) -> Tensor:
        values = []
        for row in rows:
            prompt = row.get("prompt_ids") or row["input_ids"][: [label != -100 for label in row["labels"]].index(True)]
            before, now = (_log_probs(each, prompt) for each in (self.start, model))
            values += [_divergence(before[place], now[place]) for place in range(len(prompt) - 1)]
        return torch.stack(values).mean()

    def hidden(self, model: Any, rows: Sequence[Any]) -> Tensor:
        squares = [
            (_states(model, row["input_ids"]) - _states(self.start, row["input_ids"]).detach()).square() for row in rows
        ]
        return torch.cat(squares).mean() / self.mean_square


def _log_probs(model: Any, ids: Sequence[int]) -> Tensor:
    found: Tensor = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return found


def _states(model: Any, ids: Sequence[int]) -> Tensor:
    found: Tensor = model.model(input_ids=torch.tensor([ids])).last_hidden_state[0].double()
    return found


def _divergence(before: Tensor, now: Tensor) -> Tensor:
    before = before.detach()
    order = before.argsort(descending=True)
    top, rest = order[:KEPT], order[KEPT:]
    p, q = before.exp(), now.exp()
    bucket = p[rest].sum() * (p[rest].sum() / q[rest].sum()).log()
    return (p[top] * (before[top] - now[top])).sum() + bucket


def _preference(start: Any, model: Any, pairs: Any) -> Tensor:
    return plain.mean_preference_loss(model, start, pairs, BETA)


def _weighted_tokens(model: Any, rows: Any) -> Tensor:
    """The sum of weighted losses by the sum of weights."""
    total, whole = torch.zeros((), dtype=torch.float64), 0.0
    for row in rows:
        log_probs = _log_probs(model, row["input_ids"])
        places = [place for place, label in enumerate(row["labels"][1:]) if label != -100]
        for place, weight in zip(places, row["weights"], strict=True):
            total, whole = total - weight * log_probs[place, row["labels"][place + 1]], whole + weight
    return total / whole


def _weighted_preference(start: Any, model: Any, pairs: Any) -> Tensor:
    """DPO of the rejected answers' weighted tokens that have become least likely."""
    losses = []
    for pair in pairs:
        chosen, rejected = (_log_ratios(model, start, pair["prompt_ids"], pair[f"{side}_ids"]) for side in SIDES)
        number, ascending = max(1, round(KEPT_REJECTED * len(rejected))), rejected.detach().sort().values
        least = ascending[number - 1]
        # Before the first step all are 0.
        if bool(rejected.detach().any()) and number < len(rejected):
            GAPS.append(float(ascending[number] - least))
        kept = torch.tensor(pair["weights"]) * (rejected.detach() <= least)
        losses.append(-torch.nn.functional.logsigmoid(BETA * (chosen.sum() - (kept * rejected).sum())))
    return torch.stack(losses).mean()


def _log_ratios(model: Any, start: Any, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    now, before = (_log_probs(each, [*prompt, *answer]) for each in (model, start))
    places = torch.arange(len(answer)) + len(prompt) - 1
    return (now - before.detach())[places, torch.tensor(answer)]


def weights_of(run: Path, file: str = "model.safetensors") -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(run / "model" / file)
    return found


def distance(weights: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    return max(float((weights[key] - wanted[key]).abs().max()) for key in wanted)


def main(directory: Path) -> None:
    processes.start()
    torch.set_num_threads(1)
    world = World(directory)
    on_main(world.make)
    world.sample()
    basis = world.basis()
    alone = world_size() == 1
    engines = {
        name: dict(ENGINES[name]) for name in ENGINES if name.startswith("alone") == alone and "offload" not in name
    }
    if not alone:
        engines["data-parallel"] = {}
        engines["data-parallel, whole batch"] = {"micro": ROWS // 2}
    expected = {case: world.plain(*case) for case in CASES}
    findings: dict[str, Any] = {}
    for name, engine in engines.items():
        micro = engine.pop("micro", 2)
        for case in CASES:
            method, kind, space = case
            label = f"{name}, {method}, {kind}{', ' + space if space else ''}"
            run = world.train(label, method, space, basis, micro, **world.options(kind, method), **engine)
            if rank() == 0:
                findings[label] = distance(weights_of(run), expected[case])
    naive = world.train("naive", "sft", "", None, 2)
    unweighted = world.train("unweighted", "sft", "", None, 2, anchor=world.samples, anchor_weight=0.0)
    if rank() == 0:
        findings["effect"] = min(distance(expected[case], weights_of(naive)) for case in CASES if case[0] == "sft")
        findings["weight 0"] = distance(weights_of(unweighted), weights_of(naive))
        findings["smallest gap"] = min(GAPS)
        findings["sampled rows"] = len(load_prepared(world.samples)[0])
    if not alone:
        findings |= with_adapters(world)
    write_findings(directory, findings)


def with_adapters(world: World) -> dict[str, float]:
    """LoRA: the same run under data parallelism and under ZeRO."""
    options = world.options("hidden, prompt and weights", "sft") | {"lora_rank": 4}
    engines: dict[str, dict[str, Any]] = {"data-parallel": {}, "zero2": {"zero": 2}, "zero3": {"zero": 3}}
    runs = {
        name: world.train(f"lora-{name}", "sft", "", None, 2, **options, **engine) for name, engine in engines.items()
    }
    if rank() != 0:
        return {}
    first = weights_of(runs["data-parallel"], "adapter_model.safetensors")
    return {
        f"lora {name}": distance(weights_of(run, "adapter_model.safetensors"), first)
        for name, run in runs.items()
        if name != "data-parallel"
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
