"""How well the starting model tells harmful requests from harmless look-alikes at all: linear probes on its states.

    python -m benchmarks.studies.smollm2.probe MODEL --out benchmarks/studies/smollm2/results

A probe is a ridge-penalised logistic regression on the states after the last token of a request, one for each of a few
layers. It is fitted on the requests of the safety data against look-alikes and general requests, and measured on
XSTest; and, as what could be had at best, fitted on XSTest itself and measured on the part that it has not seen. What
is said of each is the area under the curve, and how many harmless requests are taken for harmful if 5 % of the harmful
ones are let through.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import sklearn
import torch
import transformers
from sklearn.linear_model import LogisticRegression
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_registry.prompts.reading import read_prompt_set
from data_registry.prompts.specs import Prompt, PromptSetSpec
from data_registry.registry.listing import describe

Array = np.ndarray[Any, np.dtype[np.float64]]
LET_THROUGH: Final = 0.05
EVERY: Final = 3
"""Every third layer is probed."""
STRENGTHS: Final = (3e-4, 3e-3, 3e-2)
"""Inverse ridge penalties; the best is reported, which flatters the probe."""


def states(model_dir: Path, requests: Sequence[str], batch_size: int = 16) -> Array:
    """States of every third layer where an answer would begin, ``[N, layers, width]``."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    found: list[Array | None] = [None] * len(requests)
    order = sorted(range(len(requests)), key=lambda i: len(requests[i]))
    for begin in range(0, len(order), batch_size):
        chosen = order[begin : begin + batch_size]
        chats = [[{"role": "user", "content": requests[i]}] for i in chosen]
        texts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            layers = model.model(**batch, output_hidden_states=True).hidden_states[EVERY::EVERY]
        last = torch.stack([layer[:, -1] for layer in layers], 1).double().numpy()
        for row, i in enumerate(chosen):
            found[i] = last[row]
    return np.stack([one for one in found if one is not None])


def fit_and_score(train: Array, harmful: Array, test: Array, weights: Array, strength: float) -> Array:
    """Scores of the test requests, higher for harmful ones, by a probe that saw the others alone.

    Args:
        train: states to fit on, ``[N, width]``.
        harmful: whether each of them is harmful, ``[N]``.
        test: states to score, ``[M, width]``.
        weights: of the requests that are fitted on, ``[N]``.
        strength: inverse of the ridge penalty, for standardised states.
    """
    mean, spread = train.mean(0), train.std(0) + 1e-6
    probe = LogisticRegression(C=strength, max_iter=500).fit((train - mean) / spread, harmful, sample_weight=weights)
    return np.asarray(probe.decision_function((test - mean) / spread))


def area(scores: Array, harmful: Array) -> float:
    """How often a harmful request has a higher score than a harmless one; a tie counts as half."""
    above = scores[harmful][:, None] - scores[~harmful][None, :]
    return float((above > 0).mean() + (above == 0).mean() / 2)


def taken_for_harmful(scores: Array, harmful: Array) -> float:
    """Share of the harmless that a threshold refuses which lets 5 % of the harmful through, and no more."""
    threshold = np.sort(scores[harmful])[int(LET_THROUGH * harmful.sum())]
    return float((scores[~harmful] >= threshold).mean())


def balanced(groups: Sequence[str], harmful: Array) -> Array:
    """Weights under which both classes count the same, and the groups of a class too."""
    names = np.asarray(groups)
    weights = np.zeros(len(names))
    for label in (True, False):
        present = sorted(set(names[harmful == label]))
        for name in present:
            mine = (harmful == label) & (names == name)
            weights[mine] = len(names) / 2 / len(present) / mine.sum()
    return weights


def folds_by(keys: Sequence[str]) -> Iterator[Array]:
    """Parts to be left out, one for each key."""
    names = np.asarray(keys)
    for name in sorted(set(keys)):
        yield names == name


def crossed(rows: Array, harmful: Array, keys: Sequence[str], strength: float) -> Array:
    """Scores of all requests, each by a probe that was fitted without the requests of its key."""
    scores = np.zeros(len(rows))
    for out in folds_by(keys):
        weights = balanced([""] * int((~out).sum()), harmful[~out])
        scores[out] = fit_and_score(rows[~out], harmful[~out], rows[out], weights, strength)
    return scores


def best(tried: Iterator[tuple[int, float, Array]], harmful: Array) -> dict[str, Any]:
    """The layer and penalty with the largest area, and what they come to."""
    layer, strength, scores = max(tried, key=lambda one: area(one[2], harmful))
    return {"layer": layer, "strength": strength, "area": area(scores, harmful),
            "taken for harmful": taken_for_harmful(scores, harmful), "harmful": int(harmful.sum()),
            "harmless": int((~harmful).sum())}  # fmt: skip


def prompts(name: str) -> list[Prompt]:
    return read_prompt_set(PromptSetSpec(data=name)).prompts


def shipped_rows(name: str, column: str) -> list[str]:
    """A column of a data set that comes with the package."""
    with gzip.open(describe(name).location().name, "rt", encoding="utf-8") as lines:
        return [json.loads(line)[column] for line in lines]


def probe(model_dir: Path) -> dict[str, Any]:
    """Probes of one model, fitted on what the study trains on, and on XSTest itself."""
    fitted = {
        "safety data": shipped_rows("hh-refusals", "request"),
        "look-alikes": [one.text for one in prompts("lookalikes-train")],
        "alpaca": shipped_rows("alpaca-train", "instruction"),
    }
    xstest = prompts("xstest-shipped")
    harmful = np.array([one.group == "harmful" for one in xstest])
    train = states(model_dir, [text for texts in fitted.values() for text in texts])
    groups = [name for name, texts in fitted.items() for _ in texts]
    test = states(model_dir, [one.text for one in xstest])
    positive = np.array([name == "safety data" for name in groups])
    kinds = [family(one.category) for one in xstest]
    tenths = [str(number) for number in np.random.default_rng(0).integers(0, 10, len(xstest))]
    grid = [(layer, strength) for layer in range(test.shape[1]) for strength in STRENGTHS]
    weights = balanced(groups, positive)

    def of(scores: Callable[[int, float], Array]) -> dict[str, Any]:
        return best(((EVERY * (layer + 1), c, scores(layer, c)) for layer, c in grid), harmful)

    return {
        "fitted on the study's data": of(
            lambda layer, c: fit_and_score(train[:, layer], positive, test[:, layer], weights, c)
        ),
        "fitted on XSTest, its kinds left out in turn": of(
            lambda layer, c: crossed(test[:, layer], harmful, kinds, c)
        ),
        "fitted on XSTest, tenths left out in turn": of(
            lambda layer, c: crossed(test[:, layer], harmful, tenths, c)
        ),
    }  # fmt: skip


def family(category: str) -> str:
    """A kind of XSTest's safe requests together with that of its harmful contrasts."""
    return next((one for one in ("discr", "privacy") if one in category), category.removeprefix("contrast_"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model directory, as import-model makes it")
    parser.add_argument("--out", type=Path, help="directory in which the figures are kept")
    options = parser.parse_args()
    found = probe(options.model)
    for name, one in found.items():
        sys.stdout.write(
            f"{name:46} area {one['area']:.3f}  harmless taken for harmful {100 * one['taken for harmful']:.0f} %"
            f"  (layer {one['layer']})\n"
        )
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        versions = {module.__name__: module.__version__ for module in (torch, transformers, sklearn)}
        record = {"date": datetime.date.today().isoformat(), "versions": versions, "probes": found}
        (options.out / "probe.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
