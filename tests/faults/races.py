"""Commands that race for one place: ``python -m tests.faults.races --rounds 20``.

In each round several processes make, replace and clean one artifact at random moments, by its name and through a link,
with equal and with other settings; some are killed on the way. Whatever lies at the place is whole at every look, each
process ends with what it should say, and afterwards one command brings all in order.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from data_registry.core.errors import ArtifactError, InputError, OgpsaError
from data_registry.core.manifest import is_artifact, read_manifest, verify
from pipelines.core import claiming
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.leftovers import leftovers_of, remove
from pipelines.core.making import Wanted, make
from tests.core.small_artifacts import Sample, fill

_EXPECTED = ("another command is making", "made with other settings", "could not be put in its place")
_RACERS, _TURNS, _LOOKS = 6, 5, 200


def race(root: Path, seed: int) -> Counter[str]:
    """One round; returns how often each outcome came.

    Raises:
        AssertionError: something is lost, half-written, or left behind for good.
    """
    place, link = root / "disk" / "out", root / "link"
    place.parent.mkdir(parents=True)
    link.symlink_to(place)
    draw = random.Random(seed)
    racers = [_fork(place, link, root / f"report-{number}", draw.random()) for number in range(_RACERS)]
    for _ in range(_LOOKS):
        _look(place)
        time.sleep(0.002)
        if draw.random() < 0.02:
            _kill(draw.choice(racers))
    for racer in racers:
        os.waitpid(racer, 0)
    outcomes = Counter(line for file in root.glob("report-*") for line in file.read_text().splitlines())
    assert not [line for line in outcomes if line.startswith("wrong")], outcomes
    make(Wanted(place, "dataset", Sample(steps=3), overwrite=True), fill)
    assert read_manifest(place).config["steps"] == 3
    for each in leftovers_of(place):
        # What was finished and not put in its place stays, as it should; nothing here waits for it.
        assert remove(each) or each.kind == "finished", each
    _look(place)
    return outcomes


def _fork(place: Path, link: Path, report: Path, seed: float) -> int:
    process = os.fork()
    if process == 0:
        try:
            _race(place, link, report, random.Random(seed))
        finally:
            os._exit(0)
    return process


def _race(place: Path, link: Path, report: Path, draw: random.Random) -> None:
    claiming.PATIENCE_S, claiming.OTHERS_PATIENCE_S = 0.2, 0.05
    with report.open("a", buffering=1) as said:
        for _ in range(_TURNS):
            try:
                said.write(_turn(draw.choice([place, link]), draw) + "\n")
            except OgpsaError as error:
                known = any(words in error.what for words in _EXPECTED)
                said.write(f"{'refused' if known else 'wrong'}: {type(error).__name__} {error.what}\n")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
                said.write(f"wrong: {error!r}\n")


def _turn(target: Path, draw: random.Random) -> str:
    if draw.random() < 0.2:
        return f"cleaned {sum(remove(each) for each in leftovers_of(target))}"

    def write(writer: ArtifactWriter) -> None:
        # What an earlier command of the same settings has left is written over.
        shutil.rmtree(writer.path / "deep", ignore_errors=True)
        fill(writer)
        time.sleep(draw.random() * 0.03)
        if draw.random() < 0.1:
            raise InputError("another command is making nothing: it fails")

    config, overwrite = Sample(steps=draw.choice([1, 1, 2])), draw.random() < 0.4
    wanted = Wanted(target, "dataset", config, overwrite=overwrite, keep_partial=draw.random() < 0.5)
    return "up to date" if make(wanted, write).up_to_date else "made"


def _look(place: Path) -> None:
    """What lies at the place is whole, unless it was replaced between two looks at it."""
    for _ in range(50):
        before = _stamp(place)
        try:
            problems = verify(place, read_manifest(place), hashes=True) if is_artifact(place) else []
        except (ArtifactError, InputError) as error:
            problems = [error.what]
        if not problems:
            return
        if _stamp(place) == before:
            raise AssertionError(problems)


def _stamp(place: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(place)
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns


def _kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    total: Counter[str] = Counter()
    for number in range(options.rounds):
        root = Path(tempfile.mkdtemp(prefix="ogpsa-races-"))
        try:
            outcomes = race(root, options.seed + number)
        finally:
            shutil.rmtree(root, ignore_errors=True)
        for line, count in outcomes.items():
            total[line.replace(str(root), "") if not line.startswith("refused") else line.split("'")[0]] += count
    for line, count in sorted(total.items()):
        print(f"{count:6}  {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
