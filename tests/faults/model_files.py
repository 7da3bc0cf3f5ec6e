"""Damages the files of a small model and of an adapter at random, and counts how they are met.

``python -m tests.faults.model_files [NUMBER] [SEED]`` prints the outcomes; anything but a model or an error of ogpsa is
a finding, printed with the damage that led to it.
"""

from __future__ import annotations

import collections
import json
import logging
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from data_registry.core.errors import OgpsaError
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from pipelines.models.summary import summarize_model
from pipelines.tokens.tokenizer import load_source_tokenizer

VALUES = [None, True, False, 0, -1, 1, 7, 10**9, 10**20, 0.5, -0.5, float("nan"), float("inf"), "", "x", "\0", "(",
          "../x", "/", "a" * 5000, [], [1], ["x"], [[]], {}, {"x": 1}, {"(": "x"}]  # fmt: skip


def damage(directory: Path, draw: random.Random) -> str:
    """Damage one file; returns what was done."""
    file = draw.choice(sorted(path for path in directory.iterdir() if path.is_file()))
    raw = file.read_bytes()
    kind = draw.choice(["value", "value", "value", "value", "delete key", "cut", "bytes", "remove", "deep", "empty"])
    if kind in ("value", "delete key") and file.suffix == ".json":
        return f"{file.name}: {_change_value(file, json.loads(raw), draw, delete=kind == 'delete key')}"
    if kind == "remove":
        file.unlink()
    elif kind == "cut":
        file.write_bytes(raw[: draw.randrange(len(raw))])
    elif kind == "deep" and file.suffix == ".json":
        file.write_text('{"a": ' + "[" * 50_000 + "]" * 50_000 + "}")
    elif kind == "empty":
        file.write_bytes(b"")
    else:
        changed = bytearray(raw)
        for _ in range(draw.choice([1, 20])):
            changed[draw.randrange(min(len(changed), 4000))] = draw.randrange(256)
        file.write_bytes(bytes(changed))
    return f"{file.name}: {kind}"


def _change_value(file: Path, content: dict[str, Any], draw: random.Random, *, delete: bool) -> str:
    place, path = content, []
    while True:
        key = draw.choice(sorted(place))
        path.append(key)
        if not isinstance(place[key], dict) or not place[key] or draw.random() < 0.4:
            break
        place = place[key]
    if delete:
        del place[key]
    else:
        place[key] = draw.choice(VALUES)
    file.write_text(json.dumps(content))
    return f"{'.'.join(path)} " + ("deleted" if delete else f"= {str(place[key])[:40]!r}")


def meet(directory: Path) -> str:
    """What a command does with a model; the outcome in a word."""
    try:
        summarize_model(directory)
        source = resolve_model(str(directory))
        source.fingerprint()
        load_source_tokenizer(source)
        load_model(source, precision="fp32")
    except OgpsaError as error:
        return f"refused, exit {error.exit_code}" if len(str(error)) < 3000 else "a message longer than a screen"
    return "loaded"


def campaign(number: int, seed: int, models: Path) -> tuple[collections.Counter[str], list[str]]:
    """Damage copies of the models in a folder.

    Returns:
        How often each outcome came about, and the findings.
    """
    draw = random.Random(seed)
    outcomes: collections.Counter[str] = collections.Counter()
    findings = []
    kinds = sorted(path for path in models.iterdir() if path.is_dir())
    for _ in range(number):
        kind = draw.choice(kinds)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / kind.name
            shutil.copytree(kind, copy)
            done = f"{kind.name}/{damage(copy, draw)}"
            try:
                outcomes[meet(copy)] += 1
            except BaseException as error:  # whatever it is, it is what is looked for
                if isinstance(error, KeyboardInterrupt):
                    raise
                outcomes["bug"] += 1
                findings.append(f"{done}: {type(error).__name__}: {str(error)[:200]}")
    return outcomes, findings


def make_models(root: Path) -> Path:
    """A model with a tokenizer, one in shards, and an adapter on the first."""
    from tests.models.small_models import adapt, tiny
    from tests.models.test_damaged_files import PLAIN, WORDS

    tiny().save_pretrained(root / "base")
    models = root / "models"
    tiny().save_pretrained(models / "whole")
    tiny().save_pretrained(models / "shards", max_shard_size="6KB")
    adapt(root / "base", models / "adapter")
    for directory in models.iterdir():
        (directory / "tokenizer.json").write_text(json.dumps(WORDS))
        (directory / "tokenizer_config.json").write_text(json.dumps(PLAIN))
        (directory / "README.md").unlink(missing_ok=True)
    return models


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    with tempfile.TemporaryDirectory() as root:
        count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
        start = int(sys.argv[2]) if len(sys.argv) > 2 else 0
        found, bugs = campaign(count, start, make_models(Path(root)))
    print(dict(found))
    print("\n".join(bugs))
