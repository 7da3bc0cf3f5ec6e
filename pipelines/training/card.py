"""The model card: it says in words how the checkpoint was made, and has the configuration to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from data_registry.core.manifest import InputRecord
from data_registry.core.redaction import hide
from data_registry.core.yaml_text import dump
from pipelines.configs.train import TrainConfig, TrainDpoConfig, TrainSftConfig
from pipelines.configs.train_npo import TrainNpoConfig
from pipelines.core.artifact import command_line
from pipelines.core.environment import package_versions, tool_version
from pipelines.core.escaping import markdown_block, markdown_code, markdown_text
from pipelines.models.lineage import hub_base


def model_card(config: TrainConfig, method: str, inputs: Sequence[InputRecord], final: dict[str, Any]) -> str:
    """Markdown with the front matter that model hubs read.

    Args:
        config: the run's resolved options.
        method: the name of the method, such as ``"SFT"``.
        inputs: records of model, data and basis.
        final: the figures of the last logged step; remarks on the run and numbers of rows left out, if there are any.
    """
    projected = any(record.role == "basis" for record in inputs)
    # What a hub takes for the base is a model of its own; a directory on this machine would be a broken link there.
    base = hub_base(inputs)
    adapted = any(record.role == "base" for record in inputs)
    library = "peft" if adapted or config.lora_rank > 0 else "transformers"
    how = (
        f"{method} on safety data with orthogonal projection in {config.space} space "
        f"(arXiv 2602.07892): {_refresh(config)}, strength {config.strength:g}."
        if projected
        else f"{method} on safety data without projection."
    )
    lines = [
        "---",
        *([] if base is None else [dump({"base_model": hide(base)}).rstrip("\n")]),
        f"library_name: {library}",
        f"tags: [ogpsa, {method.lower()}, safety-alignment{', gradient-projection' if projected else ''}]",
        "---",
        "",
        f"# {markdown_text(config.out.name)}",
        "",
        how + _mixed_in(config) + _selected(config, final) + _left_out(final),
        "",
        *(line for remark in final.get("remarks", ()) for line in (f"> **Note:** {remark}.", "")),
        "| made from | what | fingerprint |",
        "| --- | --- | --- |",
        *map(_input_row, inputs),
        "",
        "| at the end | |",
        "| --- | --- |",
        *(f"| {key} | {value:.4g} |" for key, value in final.items() if isinstance(value, int | float)),
        "",
        "Geometry is no proof of preserved ability: measure it with `ogpsa evaluate`.",
        "",
        "## Command",
        "",
        markdown_block(shlex.join(command_line()), "bash"),
        "",
        "## Configuration",
        "",
        markdown_block(config.to_yaml(), "yaml"),
        "",
        "## Versions",
        "",
        ", ".join(f"{name} {version}" for name, version in {"ogpsa": tool_version(), **package_versions()}.items())
        + ".",
        "",
    ]
    return "\n".join(lines)


def _input_row(record: InputRecord) -> str:
    path, fingerprint = markdown_code(hide(record.path)), markdown_code(record.fingerprint[:16])
    return f"| {markdown_text(record.role)} | {path} | {fingerprint} |"


_HELD_BY = {
    "kl": "divergence from the starting model",
    "ce": "cross-entropy",
    "hidden": "distance from the starting model's last hidden states",
}


def _mixed_in(config: TrainConfig) -> str:
    text = f" {len(config.data)} data sets are trained on together." if config.data[1:] else ""
    if isinstance(config, TrainNpoConfig):
        kept = f", and the chosen ones kept by cross-entropy, weight {config.retain_weight:g}" * bool(
            config.retain_weight
        )
        text += f" The rejected answers are forgotten, by {config.loss} with beta {config.beta:g}{kept}."
    if isinstance(config, TrainSftConfig) and config.pooled_replay is not None:
        text += f" General data is mixed in: {config.replay_ratio:g} of the samples."
    if config.mask is not None:
        text += f" Only the weights of a mask are trained, held at the {config.mask_at}."
    text += _weighted(config)
    anchors = config.anchors
    if anchors is not None:
        by = _HELD_BY[anchors.kind]
        text += f" Anchor rows are held by {by}: {anchors.ratio:g} of the rows, weight {anchors.weight:g}."
    if config.prompt_anchor > 0:
        text += (
            " The model is held to the starting model at the safety prompts by divergence, "
            f"weight {config.prompt_anchor:g}."
        )
    return text


def _weighted(config: TrainConfig) -> str:
    text = ""
    if config.token_weights is not None:
        text += " The tokens of answers have weights."
        if getattr(config, "normalise", "count") == "weight":
            text += " The loss is divided by their sum."
    if isinstance(config, TrainDpoConfig) and config.token_filter is not None:
        how = config.token_filter
        whose = "as many tokens as" if how.padded else "the tokens that make up"
        of = "each batch's padded width" if how.padded else "the answer"
        text += (
            f" Of each rejected answer count {whose} {how.share:.4g} of {of}, those least likely against the "
            "starting model."
        )
    return text


def _left_out(final: dict[str, Any]) -> str:
    counts = [f"{count} {name}" for name, count in final.get("left_out", {}).items()]
    return f" Left out, because they are too long: {', '.join(counts)}." if counts else ""


def _selected(config: TrainConfig, final: dict[str, Any]) -> str:
    if not config.measures_held_out:
        return ""
    ended = f" Training stopped early at step {final['stopped_early']}." if "stopped_early" in final else ""
    which = "with the lowest held-out loss" if config.select == "best" else "at the end"
    return f"{ended} The weights are those {which}: step {final['model_of_step']}."


def _refresh(config: TrainConfig) -> str:
    if config.refresh_every == "auto":
        return f"basis refreshed when it had turned by {config.max_drift:g} degrees"
    return f"basis refreshed every {config.refresh_every} steps" if config.refresh_every else "a fixed basis"
