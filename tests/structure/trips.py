"""Three trips of a value through the project, on the embedded testbed: basis, row and answer.

``basis``: the directory given to ``train-sft --basis``, then the rows that lie in it, to the call that subtracts.
``row``: a text given to ``prepare-data``, then its token ids, to its loss in ``train-sft``.
``answer``: what a model says in ``evaluate``, then the figure that it is counted in, to the table of ``report``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tests.structure.code import project_imports, read_modules
from tests.structure.tracking import Entry, Track

PACKAGES = ("ogpsa_cli", "pipelines", "data_registry")
_TRAINING = "--max-steps 1 --batch-size 8 --precision fp32 --max-length 64 --save-every 0"
# In the words that the small model knows.
_SENTENCE = "take silk and zinc and oil , then fold"
_SUBJECTS = ("rifle", "nightshade", "crossbow", "omelet", "ivy", "hashish", "wood")


@dataclass(frozen=True)
class Walk:
    """What came of a trip.

    Attributes:
        ways: every entry into another file than the last one: file, function, argument, and file of the caller.
        files: the different files, in the order of the first entry.
        files_itself: those of them that were called with the value itself; the others were given something that
            holds it, such as the configuration.
        returns: entries into a file that had been left.
        climbs: entries called from a file that the entered one stands on: it imports the caller, through whichever
            files, and is not imported by it.
    """

    ways: list[Entry]
    files: list[str]
    files_itself: list[str]
    returns: int
    climbs: int


def walk(trip: str, tree: Path, workplace: Path) -> Walk:
    """Make a trip with the code of a tree, in an empty directory, and say which files it enters."""
    sys.path.insert(0, str(tree))
    os.chdir(workplace)
    os.environ |= {
        "PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1", "COLUMNS": "100",
        "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return _summary(_TRIPS[trip](tree).entries, tree)


def _before(*lines: str) -> None:
    """Run commands that are not followed, each in a process of its own."""
    for line in lines:
        subprocess.run([sys.executable, "-m", "ogpsa_cli", *line.split()], check=True, stdout=subprocess.DEVNULL)


def _follow(track: Track, *lines: str) -> Track:
    """Run commands here and follow the value; the ``PYTHONPATH`` and the path of imports name the tree."""
    from ogpsa_cli.__main__ import run

    for line in lines:
        with track.following():
            code = run(line.split())
        assert code == 0, f"ogpsa {line} ended with {code}"
    assert track.entries, "the value was not seen"
    assert track.has_ended, "the trip did not come to its end"
    return track


def _basis(tree: Path) -> Track:
    _before(
        "testbed --out model",
        "prepare-data testbed-assist --num-samples 16 --out data/general",
        "prepare-data testbed-safety-sft --num-samples 16 --out data/safety",
        "build-basis model --reference data/general --num-samples 8 --precision fp32 --out tracked-basis",
    )
    is_row = _is_row_of(Path("tracked-basis"))
    track = Track(
        tree, PACKAGES,
        lambda value: "tracked-basis" in str(value) if isinstance(value, str | Path) else is_row(value),
        is_end=_call_of("subtract_", "pipelines/gradients/projection.py"),
    )  # fmt: skip
    return _follow(track, f"train-sft model --data data/safety --basis tracked-basis {_TRAINING} --out run")


def _row(tree: Path) -> Track:
    texts = [(f"explain {subject} .", "guide : take salt and tar , then cut .") for subject in _SUBJECTS]
    texts.insert(3, ("explain lead .", f"guide : {_SENTENCE} it ."))
    rows = [{"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
            for question, answer in texts]  # fmt: skip
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _before("testbed --out model")
    from transformers import AutoTokenizer

    # Without its ends, which are other tokens in other surroundings.
    ids = AutoTokenizer.from_pretrained("model")(f" {_SENTENCE}", add_special_tokens=False)["input_ids"][1:-1]
    track = Track(
        tree, PACKAGES,
        lambda value: _SENTENCE in value if isinstance(value, str) else _contains(value, ids),
        is_end=_call_of("backward", "accelerate/accelerator.py"),
    )  # fmt: skip
    return _follow(
        track,
        "prepare-data rows.jsonl --out data/tracked",
        f"train-sft model --data data/tracked {_TRAINING} --out run",
    )


def _answer(tree: Path) -> Track:
    Path("prompts.txt").write_text("".join(f"explain {subject} .\n" for subject in _SUBJECTS))
    evaluate = "evaluate model --suite prompts --harmful prompts.txt --max-new-tokens 24 --name model --out"
    _before("testbed --out model", f"{evaluate} first/model")
    import pyarrow.parquet as pq

    (answers,) = Path("first/model").rglob("answers.parquet")
    said = pq.read_table(answers).to_pydict()["answer"]
    answer = max((text for text in said if said.count(text) == 1), key=len)
    figures = _figures(json.loads(Path("first/model/results.json").read_text()))
    assert len(answer) > 20
    assert figures
    track = Track(
        tree, PACKAGES,
        lambda value: answer in value if isinstance(value, str) else isinstance(value, float) and value in figures,
        last_file="table.md",
    )  # fmt: skip
    return _follow(track, f"{evaluate} results/model", "report results --out report")


_TRIPS: dict[str, Callable[[Path], Track]] = {"basis": _basis, "row": _row, "answer": _answer}
TRIPS = tuple(_TRIPS)


def _call_of(function: str, file: str) -> Callable[[FrameType], bool]:
    return lambda frame: frame.f_code.co_name == function and frame.f_code.co_filename.endswith(file)


def _is_row_of(basis: Path) -> Callable[[Any], bool]:
    """Whether a value is a tensor of rows whose numbers lie in a basis; slices of its rows are such tensors too."""
    import torch
    from safetensors.torch import load_file

    stored = [rows for file in sorted(basis.glob("basis*.safetensors")) for rows in load_file(file).values()]
    (num_rows,) = {rows.shape[0] for rows in stored}
    known = {number for rows in stored for number in rows[0].float().tolist() if number}

    def is_row(value: Any) -> bool:
        if not isinstance(value, torch.Tensor) or value.dim() != 2 or value.shape[0] != num_rows:
            return False
        numbers = value[0, :8].float().tolist() if value.is_floating_point() and value.numel() else []
        return any(numbers) and all(number in known for number in numbers if number)

    return is_row


def _contains(value: Any, ids: list[int]) -> bool:
    """Whether a list, array or tensor of whole numbers has these, one after the other."""
    if hasattr(value, "tolist"):
        if getattr(value, "ndim", 0) == 0 or value.shape[-1] * value.shape[0] > 1 << 14:
            return False
        value = value.tolist()
    if not isinstance(value, list | tuple) or not value:
        return False
    if isinstance(value[0], list):
        return any(_contains(part, ids) for part in value)
    return all(type(number) is int for number in value) and any(
        list(value[start : start + len(ids)]) == ids for start in range(len(value) - len(ids) + 1)
    )


def _figures(value: Any) -> set[float]:
    """The numbers of results that are neither whole nor settings: figures, and the bounds of their intervals."""
    if isinstance(value, dict):
        return set().union(*([_figures(part) for name, part in value.items() if name != "settings"] or [set()]))
    if isinstance(value, list):
        return set().union(*([_figures(part) for part in value] or [set()]))
    return {value} if isinstance(value, float) and not value.is_integer() else set()


def _summary(entries: list[Entry], tree: Path) -> Walk:
    ways = [entry for number, entry in enumerate(entries) if number == 0 or entries[number - 1].file != entry.file]
    files = list(dict.fromkeys(entry.file for entry in ways))
    below = _stands_on(tree)
    climbs = sum(
        entry.caller is not None
        and entry.caller in below.get(entry.file, ())
        and entry.file not in below.get(entry.caller, ())
        for entry in ways
    )
    itself = list(dict.fromkeys(entry.file for entry in entries if entry.itself))
    return Walk(ways, files, itself, len(ways) - len(files), climbs)


def _stands_on(tree: Path) -> dict[str, set[str]]:
    """For every file the files that it imports, through whichever others."""
    modules = read_modules(tree, PACKAGES)
    direct = {m.file: {below.file for below, _ in project_imports(m, modules)} for m in modules.values()}
    reached: dict[str, set[str]] = {}
    for file in direct:
        found, waiting = set(), [file]
        while waiting:
            new = direct[waiting.pop()] - found
            found |= new
            waiting += new
        reached[file] = found
    return reached


def as_json(found: Walk) -> str:
    """A walk for programs."""
    return json.dumps(asdict(found), indent=1)


def as_text(trip: str, found: Walk) -> str:
    """A walk for people: the counts, then the way file by file; a star marks files that got the value itself."""
    heading = (
        f"{trip}: {len(found.files)} files, {len(found.files_itself)}* of them with the value itself, "
        f"{found.returns} returns, {found.climbs} climbs"
    )
    lines = [f"{'*' if way.file in found.files_itself else ' '} {way.file}: {way.function}({way.argument})"
             for way in found.ways]  # fmt: skip
    return "\n".join([heading, *lines])
