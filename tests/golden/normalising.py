"""Takes out of texts and values what depends on the place, the time and the machine, and nothing else."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

from tests.golden.workspace import ROOT

# Digests of files that hold paths or results; at least one digit, so that no word is taken for one.
_DIGEST = re.compile(r"\b(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{12,64}\b")
_PATTERNS = (
    (_DIGEST, "<digest>"),
    # Times and dates.
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(\+00:00|Z)?"), "<time>"),
    (re.compile(r"\b\d+(\.\d+)? (s|ms|min)\b"), "<duration>"),
    (re.compile(r"^(.*(?:train_runtime|\w+_per_second(?:_per_rank)?)\b[^\d\n]*)[\d.]+(?:e[-+]?\d+)?", re.MULTILINE),
     r"\1<duration>"),
    # Where a file of the sources lies is for the sources to say.
    (re.compile(r"<source>/[\w./-]*/"), "<source>/"),
    # Boxes around help: how wide, not drawn out.
    (re.compile("─{4,}"), lambda rule: f"─({len(rule[0])})"),
    (re.compile(" {2,}│$", re.MULTILINE), " │"),
    # What the tool and its libraries are, of which the machine's record speaks.
    (re.compile(r"^size( +)[\d.]+ [kMG]?B\b", re.MULTILINE), r"size\1<size>"),
    (re.compile(r"^with( +)ogpsa .*$", re.MULTILINE), r"with\1<environment>"),
    (re.compile(r"(?i)\b((?:ogpsa|python|torch|transformers|trl|accelerate|deepspeed|peft|datasets|pyarrow|"
                r"safetensors)(?:[ =:]|==)+v?)\d+\.\d+[\w.+]*"), r"\1<version>"),
)  # fmt: skip
# DeepSpeed says when it has compiled something, which happens once on a machine; libraries' progress bars show speed.
_NOISE = re.compile(r"^.*(DeepSpeed deepspeed\.ops|site-packages/|ninja: |Warning: |%\|).*\n?", re.MULTILINE)
_RUN_TIMES = re.compile(r"runtime|_per_second|^duration|_s$|^seconds")
_FIGURE = re.compile(r"\b\d+\.\d{3,}(e-?\d+)?\b|\b\d+(\.\d+)?e-\d+\b")
# Of values: these are about the machine, or digests of files that hold times.
_LEFT_OUT = frozenset(
    {"fingerprint", "data_fingerprint", "model_fingerprint", "tool_version", "transformers_version", "peft_version"}
)

# Hexadecimal digits that are kept of a SHA-256.
_DIGITS = 10


def digest(content: str | bytes) -> str:
    """The first digits of the SHA-256 of some content."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:_DIGITS]


def normal(text: str, workspace: Path) -> str:
    """The text without paths of the workspace and of the sources, times, versions and digests."""
    for path, name in ((workspace, "<workspace>"), (ROOT, "<source>"), (Path(sys.prefix), "<python>")):
        text = text.replace(str(path), name)
    text = _NOISE.sub("", text.replace("\r", "\n"))
    for pattern, name in _PATTERNS:
        text = pattern.sub(name, text)
    return "\n".join(line.rstrip() for line in text.split("\n"))


def without_figures(text: str) -> str:
    """A text without measured figures, which are compared in the artifacts; of commands nothing is taken out."""
    lines = (line if line.startswith(("$", "command")) else _FIGURE.sub("<figure>", line) for line in text.split("\n"))
    return "\n".join(lines)


def normal_value(value: Any, workspace: Path) -> Any:
    """The same for a JSON value: without run times and fingerprints; texts in it are normalised."""
    if isinstance(value, dict):
        return {
            key: normal_value(entry, workspace)
            for key, entry in value.items()
            if key not in _LEFT_OUT and not _RUN_TIMES.search(key)
        }
    if isinstance(value, list):
        return [normal_value(entry, workspace) for entry in value]
    return normal(value, workspace) if isinstance(value, str) else value
