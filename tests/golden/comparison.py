"""Compares what was found with the record: texts exactly, numbers exactly or within the tolerances stated here."""

from __future__ import annotations

import difflib
import math
import re
from typing import Any

from tests.golden.digests import Record

# Of a tensor, the largest of all: how far it may be from the record, relative to the norm of what training changed in
# it since the first model of the chain, or of its own norm where it is no trained weight. Products with a random vector
# measure this distance.
TENSOR_TOLERANCE = 1e-5
# And no nearer than its number format can tell: half a unit in the last place, relative to the tensor's norm. It
# decides where training changes little, such as in norms' weights, and for rows in bfloat16.
HALF_UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-9}
# Other figures, such as losses: relative, and absolute for those that are rounding errors themselves, such as leaks.
FIGURE_TOLERANCE, FIGURE_FLOOR = 1e-3, 1e-5
_TENSOR = re.compile(r"([\dx]*) (\w+) (\S+) (\S+) (\S+) (\S+) [0-9a-f]{10}")
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def compare_texts(recorded: dict[str, str], found: dict[str, str]) -> list[str]:
    """Differences of texts, by name, as unified diffs."""
    differences = _missing(recorded, found)
    for name in sorted(recorded.keys() & found.keys()):
        before, now = recorded[name].splitlines(), found[name].splitlines()
        if before != now:
            diff = difflib.unified_diff(before, now, f"recorded {name}", f"now {name}", n=1, lineterm="")
            differences.append("\n".join(diff))
    return differences


def compare_artifacts(recorded: dict[str, Record], found: dict[str, Record], *, exact: bool) -> list[str]:
    """Differences of artifacts, one a line, those of one artifact together."""
    differences = _missing(recorded, found)
    for name in sorted(recorded.keys() & found.keys()):
        differences += [f"{name}: {line}" for line in _missing(recorded[name], found[name])]
        for key in recorded[name]:
            if key in found[name]:
                lines = _values(recorded[name][key], found[name][key], exact=exact)
                differences += [f"{name}: {key}{line}" for line in lines]
    return differences


def _missing(recorded: dict[str, Any], found: dict[str, Any]) -> list[str]:
    gone = [f"{name}: recorded, and not there now" for name in recorded if name not in found]
    return gone + [f"{name}: there now, and not recorded" for name in found if name not in recorded]


def _values(recorded: Any, found: Any, *, exact: bool) -> list[str]:
    """Where two values differ: the path inside them, and both."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        lines = [f" {line}" for line in _missing(recorded, found)]
        for key in recorded.keys() & found.keys():
            if exact or not _is_chance(key, recorded):
                lines += [f" {key}{line}" for line in _values(recorded[key], found[key], exact=exact)]
        return lines
    if isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        pairs = enumerate(zip(recorded, found, strict=True))
        return [f" {index}{line}" for index, pair in pairs for line in _values(*pair, exact=exact)]
    if recorded == found or (not exact and _close(recorded, found)):
        return []
    return [f": recorded {recorded}, now {found}"]


def _is_chance(key: str, recorded: dict[str, Any]) -> bool:
    """Whether a value says nothing where bits may differ: digests, and signs of DPO's margins at its first step, 0."""
    return key == "bytes" or (key == "rewards/accuracies" and abs(recorded.get("rewards/margins", 1.0)) < FIGURE_FLOOR)


def _close(recorded: Any, found: Any) -> bool:
    if isinstance(recorded, str) and isinstance(found, str):
        tensors = _TENSOR.fullmatch(recorded), _TENSOR.fullmatch(found)
        if tensors[0] and tensors[1]:
            return _close_tensors(tensors[0].groups(), tensors[1].groups())
        numbers = [[float(number) for number in _NUMBER.findall(text)] for text in (recorded, found)]
        same_words = _NUMBER.sub("#", recorded) == _NUMBER.sub("#", found)
        return same_words and all(_close(*pair) for pair in zip(*numbers, strict=True))
    if isinstance(recorded, float) and isinstance(found, int | float):
        return math.isclose(recorded, found, rel_tol=FIGURE_TOLERANCE, abs_tol=FIGURE_FLOOR)
    return False


def _close_tensors(recorded: tuple[str, ...], found: tuple[str, ...]) -> bool:
    if recorded[:2] != found[:2]:
        return False
    size = math.prod(int(length) for length in recorded[0].split("x") if length)
    total, norm, product, change = (float(figure) for figure in recorded[2:])
    now = [float(figure) for figure in found[2:]]
    # What is a change for all elements of a tensor adds up in its sum; figures are written with so many digits.
    allowed = max(TENSOR_TOLERANCE * change, HALF_UNIT[recorded[1]] * norm)
    rounding = 1e-9 * max(abs(norm), abs(product))
    return (
        abs(total - now[0]) <= allowed * math.sqrt(size) + 1e-6 * abs(total)
        and abs(norm - now[1]) <= allowed + rounding
        and abs(product - now[2]) <= 4 * allowed + rounding
        and abs(change - now[3]) <= max(allowed, 2e-3 * change)
    )
