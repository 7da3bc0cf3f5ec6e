"""What runs are made from: the model, data sets, its own answers and a basis, each made once by its command."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.studies.smollm2.plan import Plan, Task
from data_registry.prepared import load_prepared
from pipelines.configs.commands import BY_NAME
from pipelines.core.config import resolve

GENERAL: Final = ("alpaca", "halueval", "gsm8k")
SAFETY: Final[dict[Task, str]] = {"sft": "hh-refusals", "dpo": "hh-refusal-pairs"}


def command(name: str, /, **options: Any) -> Path:
    """Have a command make its artifact, or find that it is there, and return where it lies."""
    config = resolve(BY_NAME[name].config_class(), values=options)
    made = importlib.import_module(f"pipelines.commands.{name.replace('-', '_')}").run(config)
    return Path(made.path)


class Materials:
    """The materials of a study.

    Args:
        work: the directory of the study.
        plan: the plan.
    """

    def __init__(self, work: Path, plan: Plan) -> None:
        self._work, self._plan, self._precision = work, plan, plan.settings["precision"]
        self.model = command("import-model", source=plan.model, out=work / "model")

    def safety(self, task: Task) -> Path:
        """The safety data of a task: refusals, or pairs."""
        return self._prepared(SAFETY[task], None)

    def measured(self, split: str) -> list[Path]:
        """The general data of a split, whose answers are scored."""
        rows = self._plan.validation.rows if split == "validation" else self._plan.test.rows
        return [self._prepared(f"{name}-{split}", rows) for name in GENERAL]

    def held_out_answers(self) -> Path:
        """The model's own answers to general prompts that no run trains on."""
        return self._sampled(self._prepared("halueval-test", self._plan.test.rows), "held-out", self._plan.test.rows)

    def fill(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Put materials in the places of their names."""
        return {name: self._filled(value) for name, value in options.items()}

    def _filled(self, value: Any) -> Any:
        if isinstance(value, list):
            found = [self._filled(each) for each in value]
            return [path for each in found for path in (each if isinstance(each, list) else [each])]
        makers = {
            "@mixture": self._mixture,
            "@own": self._own,
            "@lookalikes": self._lookalikes,
            "@basis": self._basis,
        }
        return makers[value]() if isinstance(value, str) and value in makers else value

    def _general(self) -> list[Path]:
        return [self._prepared(f"{name}-train", self._plan.rows) for name in GENERAL]

    def _mixture(self) -> Path:
        """The rows of all general data sets as one data set."""
        file = self._work / "data" / "mixture.jsonl"
        rows = (row for path in self._general() for row in load_prepared(path, task="sft")[0])
        file.write_text("".join(json.dumps({"messages": row["messages"]}) + "\n" for row in rows), encoding="utf-8")
        return self._prepared(str(file), None)

    def _own(self) -> list[Path]:
        return [self._sampled(path, path.name, self._plan.own) for path in self._general()]

    def _lookalikes(self) -> Path:
        return self._sampled("lookalikes-train", "lookalikes", self._plan.lookalikes)

    def _basis(self) -> Path:
        return command(
            "build-basis", model=str(self.model), reference=self._general(), out=self._work / "basis", num_procs=1,
            num_samples=self._plan.reference_samples, batch_size=8, max_length=256, precision=self._precision,
        )  # fmt: skip

    def _prepared(self, source: str, rows: int | None) -> Path:
        return command(
            "prepare-data", source=source, num_samples=rows, tokenizer=str(self.model), max_length=256,
            drop_too_long=True, max_dropped=0.5, out=self._work / "data" / Path(source).stem,
        )  # fmt: skip

    def _sampled(self, data: Path | str, name: str, number: int) -> Path:
        return command(
            "sample", model=str(self.model), data=data, num_samples=number, max_new_tokens=64, log_probs=32,
            batch_size=self._plan.eval_batch_size, num_procs=1, precision=self._precision,
            out=self._work / "samples" / name,
        )  # fmt: skip
