"""A directory with artifacts as values that two runs of the same commands must have in common.

Everything is compared to the byte, in the whole directory, but for what is listed here.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from data_registry.core.errors import OgpsaError
from data_registry.core.manifest import MANIFEST, read_manifest, verify

# Of a manifest: when it was made and on what, and the digests of the files that hold times, which are compared here.
_MANIFEST_FIELDS = ("started", "finished", "duration_s", "environment")
# Files that hold times; the fingerprint of a run is taken over them too, and is in the manifests of what is made of it.
_FILES_WITH_TIMES = ("metrics.jsonl", "README.md")
# Of training: how long it took.
_TIMES = (
    *("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_tokens_per_second"),
    *("tokens_per_second", "tokens_per_second_per_rank", "train_tokens_per_second_per_rank"),
)
# The same in the model card.
_CARD_LINE = re.compile(r"^.*(?:train[_ ]runtime|_per_second).*$", re.MULTILINE)

Snapshot = dict[str, str]


def snapshot(root: Path) -> Snapshot:
    """Digest of every file, link and empty directory below a directory, hidden ones too, without what depends on the
    run."""
    return {
        path.relative_to(root).as_posix(): _digest(path)
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir())
    }


def _digest(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if path.is_dir():
        return "empty directory"
    content = path.read_bytes()
    try:
        if path.name == MANIFEST:
            content = _manifest(json.loads(content))
        elif path.name == "metrics.jsonl":
            lines = [_without(json.loads(line), _TIMES) for line in content.splitlines()]
            content = json.dumps(lines).encode()
        elif path.name == "README.md":
            content = _CARD_LINE.sub("", content.decode()).encode()
    except ValueError:
        # Cut off: compared as it is.
        pass
    return hashlib.sha256(content).hexdigest()


def _manifest(values: dict[str, Any]) -> bytes:
    if "kind" not in values:
        # That of a checkpoint, which no finished run has.
        return json.dumps(values).encode()
    values = _without(values, _MANIFEST_FIELDS)
    values["summary"] = _without(values.get("summary", {}), _TIMES)
    values["inputs"] = [
        _without(record, ("fingerprint",)) if record["kind"] == "run" else record for record in values["inputs"]
    ]
    others = {name: record for name, record in values["files"].items() if Path(name).name not in _FILES_WITH_TIMES}
    if len(others) < len(values["files"]):
        values |= {"files": others, "fingerprint": ""}
    return json.dumps(values).encode()


def _without(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def differences(found: Snapshot, expected: Snapshot) -> list[str]:
    """Paths that differ, are missing, or are too many."""
    return (
        [f"{name} is missing" for name in expected if name not in found]
        + [f"{name} differs" for name in expected if name in found and found[name] != expected[name]]
        + [f"{name} is left over" for name in found if name not in expected]
    )


def lost(found: Snapshot, before: Snapshot) -> list[str]:
    """Paths that existed before and are gone or changed."""
    return [f"{name} is lost" for name in before if found.get(name) != before[name]]


def half_written(root: Path, before: Snapshot, whole_files: Snapshot | None = None) -> list[str]:
    """What could be taken for whole and is not: visible files outside of artifacts, artifacts that do not verify.

    Args:
        root: where to look.
        before: what was there before.
        whole_files: files outside of artifacts are whole if they are as here.
    """
    problems = []
    whole: list[Path] = []
    for manifest in sorted(root.rglob(MANIFEST)):
        directory = manifest.parent
        if _is_checkpoint(directory):
            continue
        try:
            wrong = verify(directory, read_manifest(directory), hashes=True)
        except OgpsaError as error:
            wrong = [error.what]
        if wrong:
            problems.append(f"{directory.relative_to(root)} does not verify: {wrong[0]}")
        whole.append(directory)
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        is_visible = not any(part.startswith(".") for part in name.parts)
        is_new = path.is_file() and name.as_posix() not in before
        is_whole = is_new and (whole_files or {}).get(name.as_posix()) == _digest(path)
        if is_new and is_visible and not is_whole and not any(directory in path.parents for directory in whole):
            problems.append(f"{name} lies outside of any artifact")
    return problems


def _is_checkpoint(directory: Path) -> bool:
    # They have a manifest of their own kind, and are verified by the run that goes on from them.
    return ".checkpoints" in directory.parts
