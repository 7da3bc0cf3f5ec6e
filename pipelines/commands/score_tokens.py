"""The work of ``ogpsa score-tokens``: how much each token of answers counts in training, stored as token weights."""

from __future__ import annotations

from data_registry.prepared import load_prepared
from pipelines.configs.score_tokens import ScoreTokensConfig
from pipelines.core.job import on_main
from pipelines.core.making import Made, Wanted, make
from pipelines.engine import processes
from pipelines.engine.deepspeed_config import plan_text
from pipelines.token_weights.answers import sides_of
from pipelines.token_weights.description import KIND
from pipelines.token_weights.making import (
    find_sources,
    make_token_weights,
    token_weights_inputs,
    warn_of_polarity,
)


def run(config: ScoreTokensConfig) -> Made:
    """Compute the token weights that ``config`` describes, or find them computed.

    Raises:
        OgpsaError: an input cannot be used, or no token would count; the message says which and what to do.
    """
    device = processes.start()
    config = on_main(lambda: config.settled())
    sources = on_main(lambda: find_sources(config))
    inputs = on_main(lambda: token_weights_inputs(config, sources))
    wanted = Wanted(config.out, KIND, config, inputs, overwrite=config.overwrite, keep_partial=True)
    return make(wanted, lambda writer: make_token_weights(config, sources, device, writer))


def plan(config: ScoreTokensConfig) -> list[tuple[str, str]]:
    """The plan that ``--dry-run`` shows, as pairs of name and text; the inputs are checked.

    Raises:
        OgpsaError: as for :func:`run`, as far as it shows without the models' weights.
    """
    length, config = config.length(), config.settled()
    sources = find_sources(config)
    rows = [(record.role, record.path) for record in token_weights_inputs(config, sources)]
    warn_of_polarity(config)
    dataset, manifest = load_prepared(config.data)
    sides = sides_of(config, str(manifest.summary["task"]))
    if config.asks_model:
        rows.append(("engine", plan_text(config)))
    rows.append(("rule", config.rule))
    rows.append(("weight", weight_text(config)))
    rows.append(("answers", f"{len(dataset)} rows, {' and '.join(sides)}, {length}"))
    rows.append(("output", str(config.out)))
    return rows


def weight_text(config: ScoreTokensConfig) -> str:
    """What makes weights of scores, as one phrase."""
    if config.rule == "edit":
        return "1 where a token differs from the right answer, 0 elsewhere"
    if config.map == "below":
        return f"1 below {config.bound:g}, 0 elsewhere"
    if config.map == "top":
        which = "highest" if config.order == "most" else "lowest"
        return f"1 for {config.top:g} of each answer's tokens, those with the {which} scores, 0 elsewhere"
    return config.map
