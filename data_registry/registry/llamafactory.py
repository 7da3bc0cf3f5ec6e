"""LLaMA-Factory's ``dataset_info.json`` as a registry: every entry usable, or with the reason why it is not.

Source:
    hiyouga/LLaMA-Factory, src/llamafactory/data/parser.py (v0.9). As there, an entry that names columns has no others.
    Differs: tags and roles that are not named keep their usual names.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from data_registry.core.documents import read_text, suggest
from data_registry.core.errors import ConfigError
from data_registry.formats.layout import MESSAGE_TAGS, TAGS
from data_registry.registry.entry import Entry, make_entry

logger = logging.getLogger(__name__)

DATASET_INFO: Final = "dataset_info.json"

_KEYS: Final = (
    *("file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"),
    *("formatting", "ranking", "subset", "split", "folder", "num_samples", "columns", "tags"),
)
_OTHER_TASKS: Final = {
    "images": "it is for models that see: rows refer to images",
    "videos": "it is for models that see: rows refer to videos",
    "audios": "it is for models that hear: rows refer to audio files",
    "kto_tag": "its answers are marked good or bad one by one (KTO); neither conversations nor pairs come of that",
    "tools": "its conversations call tools, which the normal form has no place for",
}
_NO_ANSWERS: Final = "it is plain text for pre-training, without answers"


def read_dataset_info(path: Path) -> list[Entry]:
    """The entries of a ``dataset_info.json``.

    Raises:
        ConfigError: the file cannot be read, or is not of this kind.
    """
    try:
        content = json.loads(read_text(path, "registry"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise ConfigError("this is not a dataset_info.json: it must map names to objects", where=str(path))
    return [_entry(name, attributes, path) for name, attributes in content.items()]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in sorted({name for name in names if names.count(name) > 1}):
        logger.warning("dataset_info.json names '%s' twice; the last counts", name)
    return dict(pairs)


def _entry(name: str, attributes: Mapping[str, Any], path: Path) -> Entry:
    source = _source(attributes)
    problem = _problem(attributes)
    if problem is None and source is not None and "path" in source and not (path.parent / source["path"]).exists():
        problem = f"its file '{path.parent / source['path']}' does not exist: correct file_name in {path}"
    if source is None:
        source, problem = {"path": "none"}, problem or "it names no file and no hub of Hugging Face"
    values: dict[str, Any] = {"name": name, "description": _description(attributes), "source": source}
    if problem is None:
        try:
            return make_entry({**values, **_layout(attributes)}, path)
        except ConfigError as error:
            problem = error.problems[0]
    return make_entry({**values, "problem": problem}, path)


def _source(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    if attributes.get("hf_hub_url"):
        return {
            "hub": str(attributes["hf_hub_url"]),
            "subset": attributes.get("subset"),
            "data_dir": attributes.get("folder"),
            "split": attributes.get("split", "train"),
        }
    if attributes.get("file_name"):
        return {"path": str(attributes["file_name"])}
    return None


def _description(attributes: Mapping[str, Any]) -> str:
    kind = "ranked answers" if attributes.get("ranking") else "conversations"
    return f"{kind} ({attributes.get('formatting', 'alpaca')}), from LLaMA-Factory's dataset_info.json"


def _problem(attributes: Mapping[str, Any]) -> str | None:
    """Why an entry cannot be used, as far as that is seen without its data."""
    for key in attributes:
        if key not in _KEYS:
            return f"unknown key '{key}'{suggest(key, _KEYS)}"
    columns, tags = attributes.get("columns", {}), attributes.get("tags", {})
    if not isinstance(columns, dict) or not isinstance(tags, dict):
        return "columns and tags must be objects"
    for key, reason in _OTHER_TASKS.items():
        if key in columns:
            return reason
    if not attributes.get("hf_hub_url") and not attributes.get("file_name"):
        if attributes.get("ms_hub_url") or attributes.get("om_hub_url"):
            return "it is only on ModelScope or Modelers: download it and give its file_name"
        if attributes.get("script_url"):
            return "it is made by a script, which is not run: run it yourself and give its file_name"
    if attributes.get("formatting", "alpaca") not in ("alpaca", "sharegpt", "openai"):
        return f"unknown formatting '{attributes['formatting']}'"
    if attributes.get("formatting", "alpaca") == "alpaca":
        if columns and not attributes.get("ranking") and "response" not in columns:
            return _NO_ANSWERS
    elif columns and "messages" not in columns:
        return "its columns name no messages"
    if attributes.get("ranking") and columns and not {"chosen", "rejected"} <= set(columns):
        return "it is ranked, and its columns do not name chosen and rejected"
    return None


def _layout(attributes: Mapping[str, Any]) -> dict[str, Any]:
    columns = dict(attributes.get("columns", {}))
    ranking = bool(attributes.get("ranking"))
    layout: dict[str, Any] = {
        "task": "preference" if ranking else "sft",
        "columns": columns,
        "only_columns": bool(columns),
        "num_samples": attributes.get("num_samples"),
    }
    formatting = attributes.get("formatting", "alpaca")
    if formatting == "alpaca":
        return {**layout, "format": "preference" if ranking else "alpaca"}
    tags = {key.removesuffix("_tag"): value for key, value in dict(attributes.get("tags", {})).items()}
    # Turns of tools are left to be rejected row by row: most rows of such data have none.
    tags = {key: value for key, value in tags.items() if key not in ("observation", "function")}
    base = MESSAGE_TAGS if formatting == "openai" else TAGS
    return {**layout, "format": "sharegpt", "tags": {**base, **tags}}
