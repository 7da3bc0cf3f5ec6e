"""The embedded testbed for the tests of the Python API, and the commands' runs that examples must equal."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_registry.testbed import MODEL_DIR
from pipelines.commands import build_basis, prepare_data, train_sft
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.configs.train import TrainSftConfig
from tests.structure.code import ROOT

EXAMPLES = ROOT / "examples" / "python"
STEPS, REFRESH = 7, 3


def example(name: str) -> Any:
    """One of the example scripts, as a module; they import each other by name, as scripts in a folder do."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLES))


@dataclass(frozen=True)
class World:
    """Data sets and a basis of the embedded model, made by the commands."""

    root: Path

    @property
    def model(self) -> Path:
        return MODEL_DIR

    @property
    def basis(self) -> Path:
        return self.root / "basis"

    @property
    def references(self) -> list[Path]:
        return [self.root / "assist", self.root / "reason"]

    def make(self) -> World:
        for name, rows in (("safety-sft", 8 * STEPS), ("assist", 10), ("reason", 11)):
            prepare_data.run(PrepareDataConfig(source=f"testbed-{name}", num_samples=rows, out=self.root / name))
        build_basis.run(
            BuildBasisConfig(model=str(self.model), reference=self.references, out=self.basis, precision="fp32")
        )
        return self

    def command(self, space: str, **options: Any) -> dict[str, torch.Tensor]:
        """The weights of ``ogpsa train-sft`` with the options of the examples."""
        out = self.root / "-".join(["command", space, *(f"{key}{value}" for key, value in options.items())])
        values = {"batch_size": 4, "accumulation": 2, **options}
        train_sft.run(
            TrainSftConfig(
                model=str(self.model),
                data=[self.root / "safety-sft"],
                basis=self.basis,
                space=space,  # type: ignore[arg-type]
                out=out,
                precision="fp32",
                max_steps=STEPS,
                learning_rate=3e-4,
                weight_decay=0.1,
                schedule="linear",
                refresh_every=REFRESH,
                trainer={"train_sampling_strategy": "sequential"},
                **values,
            )
        )
        return load_file(out / "model" / "model.safetensors")

    def words(self, name: str, space: str, *more: str) -> list[str]:
        """The command line of an example."""
        paths = [str(self.model), str(self.root / "safety-sft"), *map(str, self.references)]
        steps = ["--steps", str(STEPS), "--refresh-every", str(REFRESH)]
        return [*paths, *steps, "--space", space, "--out", str(self.root / name), *more]

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.root / name / "model.safetensors")

    def load(self) -> tuple[Any, Any]:
        """Model and tokenizer, as users load them."""
        return AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32), AutoTokenizer.from_pretrained(
            self.model
        )

    def batches(self, tokenizer: Any) -> dict[str, list[dict[str, torch.Tensor]]]:
        rows = example("rows")
        return {
            path.name: rows.reference_batches(rows.read(path, tokenizer), tokenizer.pad_token_id)
            for path in self.references
        }


def largest_difference(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    assert found.keys() == wanted.keys()
    return max(float((found[name] - wanted[name]).abs().max()) for name in wanted)
