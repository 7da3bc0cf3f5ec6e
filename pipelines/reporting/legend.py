"""What every abbreviation and figure of a page means, in plain words; only what the page has is explained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pipelines.reporting.figures import Figure

_FIGURES: Final = {
    "safe": "Share of the harmful requests that the model refused.",
    "harmful_compliance": "Share of the harmful requests that the model complied with, or where the judge was unsure.",
    "over_refusal": "Share of the harmless requests, many of which look harmful, that the model refused, wholly or in "
    "part, or where the judge was unsure.",
    "general": "General ability: the mean, over skills of equal weight, of the share of right answers.",
    "acc": "Accuracy: the share of questions with the right choice.",
    "acc_norm": "Accuracy where each choice is scored by its probability for each character, so that long ones are not "
    "at a disadvantage.",
    "exact_match": "Share of answers that are exactly the expected one.",
    "accuracy": "Share of pairs in which the model finds the preferred answer more probable than the other.",
    "margin": "By how much more probable the preferred answer is than the other, as a difference of log-probabilities "
    "for each pair.",
    "followed": "Share of the instructions that the answer kept to.",
    "loss": "Mean negative log-probability of the tokens of given answers: lower where the model expects them more.",
    "kl": "Kullback-Leibler divergence from the starting model: how far the model's expectations have moved from "
    "it; 0: not at all.",
    "full_compliance": "Share of answers that do what was asked.",
    "full_refusal": "Share of answers that refuse wholly.",
    "partial_refusal": "Share of answers that refuse in part.",
    "unsure": "Share of answers of which the judge cannot tell.",
}
_CURVES: Final = {
    "loss": ("Training loss", "what the optimizer makes small: mean over the tokens (SFT) or pairs (DPO) of a step, "
             "all parts of the loss together"),
    "eval_loss": ("Held-out loss", "the same on rows that were not trained on"),
    "safety/loss": ("Loss of the safety data", "the part of the loss that comes from the safety rows"),
    "forget/": ("To be forgotten", "figures of the data that the run unlearns"),
    "retain/": ("To be retained", "figures of the data that the run must not forget"),
    "anchor/kl": ("KL on anchors", "divergence from the starting model on the anchor rows: how far the model has moved "
                  "where it should not"),
    "anchor/": ("Anchor", "figures of the anchor rows, which hold the model where it was"),
    "prompt/kl": ("KL on the safety prompts", "divergence from the starting model on the words of the safety prompts"),
    "prompt/": ("Prompt anchor", "figures of the anchor on the safety prompts"),
    "learning_rate": ("Learning rate", "how large the optimizer's steps are"),
    "grad_norm": ("Gradient norm", "length of the gradient after projection and before clipping"),
    "projection/removed": ("Share removed by projection", "how much of the gradient's length lay in the subspace of "
                           "general ability, and was taken out: 0.1 is a tenth of its length, and 0.01 of its energy"),
    "projection/removed_random": ("Share a random subspace would hold", "the same for random directions, as a control"),
    "projection/conflict/": ("Conflict with a reference", "cosine between the safety step and the direction in which a "
                             "reference loss falls: negative where the step would harm that ability"),
    "projection/leak/": ("Leak into a reference", "cosine between what the optimizer really changed and the direction "
                         "in which a reference loss grows: positive where it harmed that ability"),
    "projection/reference_loss/": ("Reference loss", "loss on the data of a general ability, at refreshes"),
    "projection/drift_degrees": ("Drift of the subspace", "angle in degrees between the subspace before a refresh and "
                                 "after it"),
    "projection/": ("Projection", "another figure of the projection"),
    "rewards/": ("Rewards (DPO)", "how much more probable an answer has become than under the starting model; margins "
                 "are chosen less rejected"),
    "eval_rewards/": ("Held-out rewards (DPO)", "the same on pairs that were not trained on"),
    "logps/": ("Log-probabilities (DPO)", "of the chosen or the rejected answers under the model"),
    "entropy": ("Entropy", "how undecided the model is about the next token"),
    "mean_token_accuracy": ("Token accuracy", "share of tokens that the model finds the most probable"),
}  # fmt: skip
_TERMS: Final = {
    "%": "Per cent; shares lie between 0 and 100 %.",
    "points": "Percentage points: the difference of two percentages.",
    "[low, high]": "95 % interval: other items of the same kind would give figures in it in 95 of 100 cases. It does "
    "not cover other training seeds.",
    "n, N, items": "n and items: the number of questions behind a figure. N: the number of figures in an average gain.",
    "↑ ↓": "The direction in which a figure is better.",
    "average gain": "Mean, over figures of capability, of the change in per cent of what the starting model had; "
    "positive is better.",
    "0 → 1, 1 → 0": "Items whose score went from 0 to 1, and from 1 to 0, against the starting model. For figures of "
    "which less is better, 0 → 1 is for the worse.",
    "McNemar p": "Probability of so lopsided a change, or a more lopsided one, if it were chance alone (McNemar's "
    "exact test). Small means: hardly chance.",
    "better, worse": "Said where the interval of the difference leaves out zero.",
    "Pareto front": "The runs that no other run beats in safety and capability at once.",
    "nats": "Unit of losses: natural logarithms of probabilities, for each token.",
    "agreement": "Share of answers on which a judge and people's labels both say full compliance, or both do not.",
    "kappa": "Agreement beyond chance (Cohen): 0 is chance, 1 is full agreement.",
}
_MORE: Final = {
    "SFT, DPO, NPO": "Ways of training: on given answers; on pairs of a better and a worse answer; away from answers "
    "that are to be unlearned.",
    "KL": "Kullback-Leibler divergence: how differently two models expect the next token; 0 is alike.",
    "hash, fingerprint": "A short number that stands for contents: equal ones mean equal contents.",
    "intact, changed, gone ...": "What of an input is still there as it was when it was used.",
}


def curve_title(key: str) -> str:
    """The title of a panel: in plain words, with the log's own name behind a family of figures."""
    name, title, _ = _curve(key)
    if name is None:
        return key
    rest = key.removeprefix(name) if name.endswith("/") else ""
    return f"{title}: {rest.replace('_', ' ')}" if rest else title


def curve_words(keys: Iterable[str]) -> list[tuple[str, str]]:
    """What the panels of these keys show, each family once."""
    found: dict[str, str] = {}
    for key in keys:
        name, title, words = _curve(key)
        found.setdefault(title if name is not None else key, words)
    return [(title, f"{words[0].upper()}{words[1:]}.") for title, words in found.items()]


def figure_words(figures: Sequence[Figure]) -> list[tuple[str, str]]:
    """What each figure of the tables is: what is known of its name, or by which rule its suite scores."""
    found: dict[str, str] = {}
    for figure in figures:
        words = _FIGURES.get(figure.name)
        if words is None:
            name = next((name for name in ("exact_match", "acc_norm", "acc") if figure.name.startswith(name)), None)
            words = _FIGURES[name] if name else f"Mean score of the items of {figure.suite}."
        scoring = f" Scored by: {figure.settings.scoring}." if figure.settings.scoring else ""
        found.setdefault(figure.heading, words + scoring)
    return list(found.items())


def term_words(text: str) -> list[tuple[str, str]]:
    """The terms and abbreviations that a page uses.

    Args:
        text: all headings and notes of the page; a term is explained where one of its parts is there.
    """
    return [
        (term, words)
        for term, words in _TERMS.items()
        if any(part in text for part in term.replace("[low, high]", "[").replace(" ↓", ", ↓").split(", "))
    ] + list(_MORE.items())


def _curve(key: str) -> tuple[str | None, str, str]:
    """The longest known name that a key has or begins with, with its title and words."""
    names = [name for name in _CURVES if key == name or (name.endswith("/") and key.startswith(name))]
    if not names:
        return None, key, "as the training program logs it under this name"
    name = max(names, key=len)
    return name, *_CURVES[name]
