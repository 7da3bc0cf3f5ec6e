"""One fault after the other: what is there afterwards, and whether the same command, run again, makes it good."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import comparison, processes
from tests.faults.boundaries import Action, Boundary, Fault
from tests.faults.commands import COMMANDS, PREPARATIONS, Command, needed_by, write_files
from tests.faults.comparison import Snapshot
from tests.faults.endings import RANK_KILLED, unclear_end_of_a_rank, unclear_error
from tests.faults.processes import Ended, Kill

KILLED, KILLED_WRITING, DISK_FULL, TRUNCATED, UNFINISHED = (
    "killed at a moment", "killed at a write", "disk full", "file cut off", "unfinished work cut off",
)  # fmt: skip
# Of the boundaries, those at the end put the artifact in its place.
_LAST = 25
# Files that a reader other than inspect is tried on.
_FEW = 3
_KILLED = -9
CHECKPOINTS = "/.checkpoints/"


@dataclass
class Trial:
    """One fault and what came of it.

    Attributes:
        command: name of the command.
        kind: of the fault.
        what: where it struck.
        struck: whether the command was still running then.
        lost: what existed before and was gone or changed after the fault, or after the rerun.
        half_written: what could be taken for whole and was not.
        unclear: what was wrong with how the command ended: exit code, message.
        finished: whether the rerun ended well; None where none is due.
        differing: in what its work differs from that of an undisturbed run.
        seconds: of both.
    """

    command: str
    kind: str
    what: str = ""
    struck: bool = True
    lost: list[str] = field(default_factory=list)
    half_written: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    finished: bool | None = None
    differing: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def problems(self) -> list[str]:
        """Everything that should not be."""
        failed = ["the rerun failed"] if self.finished is False else []
        return [*self.lost, *self.half_written, *self.unclear, *failed, *self.differing]


@dataclass
class Undisturbed:
    """A run without faults: how long it takes, when it writes, what it says, and all that is there afterwards."""

    seconds: float
    boundaries: Sequence[Boundary]
    out: str
    before: Snapshot
    after: Snapshot


class Stage:
    """The directory in which a command runs: the same path for every run, its inputs fresh each time.

    Args:
        name: of the command.
        root: where to work.
        draw: source of everything that is random.
        command: another one than the campaign's of that name.
        twice: make sure that two undisturbed runs make the same.
    """

    def __init__(
        self, name: str, root: Path, draw: random.Random, *, command: Command | None = None, twice: bool = True
    ) -> None:
        self.name, self.draw = name, draw
        self.command = command or COMMANDS[name]
        self._inputs, self.place, self._whole = root / "inputs", root / "place", root / "whole"
        self._prepare()
        self.undisturbed = self._run_undisturbed(twice=twice)
        self._latest_s = self.undisturbed.seconds

    # --- Runs ---

    def _prepare(self) -> None:
        self.place.mkdir(parents=True)
        write_files(self.place)
        for name in needed_by(self.command):
            ended = processes.forked(PREPARATIONS[name], self.place)
            if ended.code:
                raise RuntimeError(f"'{' '.join(PREPARATIONS[name])}' ended with {ended.code}:\n{ended.err}")
        self.place.rename(self._inputs)

    def _run_undisturbed(self, *, twice: bool) -> Undisturbed:
        before = self.begin()
        ended = self.run()
        if ended.code:
            raise RuntimeError(f"'{self.name}' ended with {ended.code}:\n{ended.err}")
        shutil.copytree(self.place, self._whole, symlinks=True)
        after = comparison.snapshot(self.place)
        if not twice:
            return Undisturbed(ended.seconds, ended.boundaries, ended.out, before, after)
        # The first use of a library takes longer; and what two undisturbed runs differ in is no fault's doing.
        self.begin()
        second = self.run()
        differing = comparison.differences(comparison.snapshot(self.place), after)
        if second.code or differing:
            raise RuntimeError(f"'{self.name}' does not make the same twice: {differing}")
        says = self.command.says
        if says is not None and (ended.boundaries or after != before or says(ended.out) != says(second.out)):
            raise RuntimeError(f"'{self.name}' changes files ({ended.boundaries}), or does not say the same twice")
        return Undisturbed(min(ended.seconds, second.seconds), second.boundaries, second.out, before, after)

    def begin(self, source: Path | None = None) -> Snapshot:
        """Lay out the inputs (or another copy) afresh."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(source or self._inputs, self.place, symlinks=True)
        return comparison.snapshot(self.place)

    def run(
        self,
        arguments: Sequence[str] | None = None,
        *,
        fault: Fault | None = None,
        kill: Kill | None = None,
        arm: Callable[[], None] | None = None,
    ) -> Ended:
        """Run the command, or another one, here; ``arm`` is called in its process before."""
        typed = self.command.typed if arguments is None else ""
        words = arguments or self.command.arguments
        return processes.forked(words, self.place, fault=fault, kill=kill, arm=arm, typed=typed)

    # --- Faults ---

    def kill_at_a_moment(self, rank: int | None = None) -> Trial:
        """SIGKILL at a random moment of the time that the command takes, to all of it or to one of its ranks."""
        trial = Trial(self.name, KILLED)
        kill = Kill(self.draw.uniform(0, self._latest_s), rank)
        before = self.begin()
        ended = self.run(kill=kill)
        trial.struck = ended.code != 0
        trial.what = f"after {kill.after_s:.2f} s" + ("" if rank is None else f", rank {rank} alone")
        trial.seconds = ended.seconds
        if not trial.struck:
            # The machine was busier when the command was timed: after this, not too late a second time.
            self._latest_s = min(self._latest_s, ended.seconds) / 2
        # That the other rank does not outlast it is a matter of the limit that every command has.
        if rank is not None and trial.struck:
            trial.unclear += unclear_end_of_a_rank(ended, rank)
        return self._examine(trial, before)

    def kill_at_a_write(self, rank: int | None = None, *, alone: bool = False, within: str = "") -> Trial:
        """SIGKILL before an operation that changes the directory, or in the middle of a write.

        Args:
            rank: it is an operation of this rank.
            alone: this rank alone is killed.
            within: its path holds this.
        """
        trial = Trial(self.name, KILLED_WRITING)
        fault = self._drawn(Fault(self.draw.choice((Action.KILL, Action.TORN)), 0, rank, alone, within))
        before = self.begin()
        ended = self.run(fault=fault)
        trial.struck, trial.seconds = ended.code in (_KILLED, RANK_KILLED), ended.seconds
        trial.what = ended.struck + ("" if rank is None else f", rank {rank}{' alone' if alone else ''}")
        if alone and trial.struck:
            trial.unclear += unclear_end_of_a_rank(ended, rank)
        elif ended.code not in (_KILLED, 0):
            trial.unclear.append(f"exit code {ended.code}")
        return self._examine(trial, before)

    def fill_the_disk(self, rank: int | None = None) -> Trial:
        """Nothing more can be written from a random moment on: a clear error, and nothing half-written.

        Args:
            rank: by this one alone.
        """
        trial = Trial(self.name, DISK_FULL)
        before = self.begin()
        ended = self.run(fault=self._drawn(Fault(Action.FULL, 0, rank)))
        trial.struck, trial.what, trial.seconds = ended.code != 0, ended.struck, ended.seconds
        if rank is not None:
            trial.what += f", rank {rank} alone"
        if ended.code:
            trial.unclear += unclear_error(self.command.arguments, ended, (2, 3), ("space", "could not be written"))
            leftovers = [path.name for path in self.place.glob(".*")]
            if leftovers and not self.command.goes_on:
                trial.unclear.append(f"{leftovers[0]} is left on the full disk")
        return self._examine(trial, before)

    def _drawn(self, fault: Fault) -> Fault:
        """The fault at a boundary that is drawn from those that it concerns."""
        concerned = [boundary for boundary in self.undisturbed.boundaries if fault.concerns(boundary)]
        places = [at for at, one in enumerate(concerned, 1) if one.takes_space or fault.action is not Action.FULL]
        if not places:
            raise RuntimeError(f"'{self.name}' writes nothing that {fault} is about")
        # A quarter of them where the artifact is put in its place.
        at_the_end = self.draw.random() < 0.25
        return dataclasses.replace(fault, at=self.draw.choice(places[-_LAST:] if at_the_end else places))

    def _examine(self, trial: Trial, before: Snapshot) -> Trial:
        """What is there after the fault; then the same command again."""
        found = comparison.snapshot(self.place)
        trial.lost += self._lost(found, before)
        trial.half_written += comparison.half_written(self.place, before, self.undisturbed.after)
        if self.command.says is not None:
            trial.half_written += comparison.differences(found, before)
        again = self.run()
        trial.seconds += again.seconds
        trial.finished = again.code == 0
        if not trial.finished:
            trial.unclear.append(f"the rerun ended with {again.code}: {again.err.strip()[-300:]}")
        elif self.command.says is not None and self.command.says(again.out) != self.command.says(self.undisturbed.out):
            trial.differing.append(f"it says something else: {again.out}")
        found = comparison.snapshot(self.place)
        trial.differing += comparison.differences(found, self.undisturbed.after)
        return trial

    def _lost(self, found: Snapshot, before: Snapshot) -> list[str]:
        """What is lost; an artifact that is being replaced is the old one or the new one, whole."""
        lost = comparison.lost(found, before)
        for made in self.command.makes:
            versions = [_below(made, found), _below(made, before), _below(made, self.undisturbed.after)]
            if versions[1] and versions[0] in versions[1:]:
                lost = [path for path in lost if not path.startswith(f"{made}/")]
        return lost

    # --- Files that are cut off ---

    def cut_off_unfinished_work(self) -> Trial:
        """Killed in the second half, and a file of what it left is cut off: it is not used, and the rerun is right."""
        trial = Trial(self.name, UNFINISHED)
        total = len(self.undisturbed.boundaries)
        before = self.begin()
        ended = self.run(fault=Fault(Action.KILL, self.draw.randint(total // 2, total - _LAST)))
        files = [path for path in self.place.rglob("*") if path.is_file() and path.stat().st_size]
        files = [path for path in files if any(part.startswith(".") for part in path.relative_to(self.place).parts)]
        checkpoints = sorted({path.parent for path in files if path.parent.name.startswith("checkpoint-")})
        if len(checkpoints) > 1:
            files = [path for path in files if path.parent == checkpoints[-1]]
        trial.struck, trial.seconds = bool(files), ended.seconds
        if files:
            file = self.draw.choice(sorted(files))
            os.truncate(file, self.draw.randrange(file.stat().st_size))
            trial.what = f"{file.relative_to(self.place)}, after {ended.struck}"
        return self._examine(trial, before)

    def cut_off_files(self, number: int | None) -> list[Trial]:
        """Files of what the command makes are cut off, one at a time: those who read it refuse it.

        Args:
            number: so many for each reader, drawn; None for a few, and all of them for ``inspect``.
        """
        trials = []
        for made, readers in self.command.readers.items():
            files = sorted(path.relative_to(self._whole) for path in (self._whole / made).rglob("*") if path.is_file())
            files = [file for file in files if (self._whole / file).stat().st_size]
            for reader in readers:
                every = number is None and reader[0] == "inspect"
                chosen = files if every else self.draw.sample(files, min(number or _FEW, len(files)))
                trials += [self._cut_off(reader, file) for file in chosen]
        return trials

    def _cut_off(self, reader: tuple[str, ...], file: Path) -> Trial:
        size = self.draw.randrange((self._whole / file).stat().st_size)
        trial = Trial(self.name, TRUNCATED, f"{file} to {size} bytes, read by {reader[0]}")
        self.begin(self._whole)
        os.truncate(self.place / file, size)
        before = comparison.snapshot(self.place)
        ended = self.run(reader)
        trial.seconds = ended.seconds
        if ended.code == 0:
            trial.half_written.append(f"{reader[0]} took {file} cut off at {size} bytes for whole")
        else:
            trial.unclear += unclear_error(reader, ended, (3,), (file.parts[0],))
        trial.lost += comparison.lost(comparison.snapshot(self.place), before)
        if (self.place / "further").exists():
            trial.half_written.append("something was made of it")
        return trial


def _below(name: str, found: Snapshot) -> Snapshot:
    """What is visible of an artifact: checkpoints of a run that is done are removed last."""
    return {path: digest for path, digest in found.items() if path.startswith(f"{name}/") and "/." not in path}
