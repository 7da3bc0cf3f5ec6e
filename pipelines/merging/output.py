"""What goes with merged weights: the adapter's or model's configuration, tokenizer, template and a model card."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_registry.core.yaml_text import dump
from pipelines.core.escaping import markdown_row, markdown_text
from pipelines.merging.adapters import Adapter
from pipelines.models.files import ADAPTER_CONFIG
from pipelines.models.reference import ModelSource, model_directory

_TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("vocab.txt", "merges.txt", "*.model", "*.tiktoken", "chat_template.json", "*.jinja"),
    "additional_chat_templates/*.jinja",
)
_MODEL = ("config.json", "generation_config.json", "*.py")


def copy_tokenizer(source: ModelSource, target: Path) -> None:
    """Copy the tokenizer and chat templates that go with a model."""
    _copy(model_directory(source.tokenizer_source), target, _TOKENIZER)


def copy_model_config(source: ModelSource, target: Path) -> None:
    """Copy a model's configuration and the code that it brings."""
    _copy(model_directory(source), target, _MODEL)


def _copy(directory: Path, target: Path, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        for file in sorted(directory.glob(pattern)):
            place = target / file.relative_to(directory)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)


def write_adapter_config(
    target: Path, finetuned: Adapter, base: ModelSource, shapes: Mapping[str, tuple[int, float]]
) -> None:
    """Write PEFT's configuration for merged factors.

    Where nothing but values changed it is the fine-tuned adapter's. Otherwise ``r`` is the highest rank, and alpha
    gives every module its scaling; those of another rank are in the patterns. Where all scalings are equal, so is
    ``lora_alpha / r``, which is all that vLLM looks at.

    Args:
        target: the adapter's directory.
        finetuned: the adapter whose other settings hold.
        base: the model that it changes.
        shapes: rank and scaling of each module.
    """
    config = dict(finetuned.config)
    config["base_model_name_or_path"] = str(Path(base.path_or_id).resolve()) if base.is_local else base.path_or_id
    config["revision"] = base.revision
    config["inference_mode"] = True
    before = {name: (module.rank, module.scaling) for name, module in finetuned.modules.items()}
    config |= changed_settings(before, shapes)
    (target / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def changed_settings(before: Mapping[str, tuple[int, float]], after: Mapping[str, tuple[int, float]]) -> dict[str, Any]:
    """The settings of an adapter that differ once its modules have other ranks, or are others.

    Args:
        before: rank and scaling of each module of the fine-tuned adapter.
        after: those of the merged one.
    """
    changed = _rank_settings(after) if after != before else {}
    if set(after) != set(before):
        changed["target_modules"] = sorted(after)
        changed |= dict.fromkeys(("layers_to_transform", "layers_pattern", "exclude_modules"))
    return changed


def _rank_settings(shapes: Mapping[str, tuple[int, float]]) -> dict[str, Any]:
    rank = max(rank for rank, _ in shapes.values())
    scaling = Counter(scaling for _, scaling in shapes.values()).most_common(1)[0][0]
    alpha = _number(scaling * rank)
    alphas = {name: _number(own * of_rank) for name, (of_rank, own) in shapes.items()}
    return {
        "r": rank,
        "lora_alpha": alpha,
        "use_rslora": False,
        "rank_pattern": {name: own for name, (own, _) in shapes.items() if own != rank},
        "alpha_pattern": {name: own for name, own in alphas.items() if own != alpha},
    }


def _number(value: float) -> int | float:
    """A whole number where it is one, since some readers of alpha expect that."""
    return round(value) if abs(value - round(value)) < 1e-9 * max(1.0, abs(value)) else value


def write_card(
    target: Path, title: str, rows: Sequence[tuple[str, str]], base: ModelSource, *, is_adapter: bool
) -> None:
    """Write a model card that says how the weights were made."""
    named = str(Path(base.path_or_id).resolve()) if base.is_local else base.reference
    head = [
        "---",
        dump({"base_model": named}).rstrip("\n"),
        *(["library_name: peft"] if is_adapter else []),
        "tags: [ogpsa, merge]",
    ]
    table = [markdown_row(row).rstrip("\n") for row in rows]
    made = "Made with `ogpsa merge`. The figures of each layer are in the run's `layers.parquet`."
    text = [*head, "---", f"# {markdown_text(title)}", "", made, "", "| | |", "| --- | --- |", *table, ""]  # fmt: skip
    (target / "README.md").write_text("\n".join(text), encoding="utf-8")
