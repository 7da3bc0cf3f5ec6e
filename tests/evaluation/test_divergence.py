"""The suite divergence: against the formula over the whole vocabulary, zero for the model that made the samples."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_registry.core.errors import ConfigError
from data_registry.testbed import MODEL_DIR
from pipelines.commands import evaluate, prepare_data, sample
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.configs.sample import SampleConfig
from pipelines.evaluation.contract.answer import read_answers
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model

VOCABULARY = json.loads((MODEL_DIR / "tokenizer.json").read_text())["model"]["vocab"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Prepared data, samples of the embedded model with all log-probabilities, and a model that is a little other."""
    folder = tmp_path_factory.mktemp("divergence")
    prepare_data.run(PrepareDataConfig(source="testbed-assist", num_samples=7, out=folder / "assist"))
    sample.run(
        SampleConfig(
            model=str(MODEL_DIR), data=folder / "assist", log_probs=len(VOCABULARY), max_new_tokens=5,
            out=folder / "samples",
        )
    )  # fmt: skip
    shutil.copytree(MODEL_DIR, folder / "other")
    weights = load_file(folder / "other" / "model.safetensors")
    torch.manual_seed(0)
    changed = {
        name: (tensor + 0.05 * torch.randn_like(tensor.float())).to(tensor.dtype) for name, tensor in weights.items()
    }
    save_file(changed, folder / "other" / "model.safetensors", metadata={"format": "pt"})
    return {path.name: path for path in folder.iterdir()}


def measured(model: Path, data: list[Path], out: Path, **options: object):
    config = {"model": str(model), "suite": ["divergence"], "data": data, "out": out, "batch_size": 3} | options
    return evaluate.run(EvaluateConfig(**config))


def test_it_is_the_divergence_at_all_places(data: dict[str, Path], tmp_path: Path) -> None:
    found = measured(data["other"], [data["samples"]], tmp_path / "r")
    start, other = (
        load_model(resolve_model(str(path)), precision="fp32").double() for path in (MODEL_DIR, data["other"])
    )
    totals, counts = [], []
    for item in read_answers(found.path):
        words = f"<user> {item.prompt} <bot> {item.answer} <end>".split()
        ids = [VOCABULARY[word] for word in words]
        with torch.no_grad():
            logs = [torch.log_softmax(model(torch.tensor([ids])).logits[0], -1) for model in (start, other)]
        divergence = (logs[0].exp() * (logs[0] - logs[1])).sum(-1)
        first = len(words) - len(item.answer.split()) - 2
        places = range(first, first + int(item.weight))
        totals.append(sum(divergence[place].item() for place in places))
        counts.append(item.weight)
        assert item.score == pytest.approx(totals[-1] / counts[-1], rel=1e-3, abs=1e-6)
    metric = found.results.metric("divergence/samples", "kl")
    assert metric.value == pytest.approx(sum(totals) / sum(counts), rel=1e-3, abs=1e-6)
    assert metric.value > 1e-3
    assert metric.low < metric.value < metric.high
    assert metric.num_items == 7


def test_it_is_nothing_for_the_model_itself_whatever_the_batches(data: dict[str, Path], tmp_path: Path) -> None:
    own = measured(MODEL_DIR, [data["samples"]], tmp_path / "own").results.metric("divergence/samples", "kl").value
    assert own == pytest.approx(0, abs=1e-5)
    values = [
        measured(data["other"], [data["samples"]], tmp_path / f"r{size}", batch_size=size, num_samples=5)
        .results.metric("divergence/samples", "kl").value
        for size in (1, 4)
    ]  # fmt: skip
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_each_suite_gets_the_data_that_are_for_it(data: dict[str, Path], tmp_path: Path) -> None:
    both = ["divergence", "reference-loss"]
    found = measured(MODEL_DIR, [data["assist"], data["samples"]], tmp_path / "r", suite=both)
    assert {suite.suite for suite in found.results.suites} == {"divergence/samples", "reference-loss/assist"}
    alone = measured(MODEL_DIR, [data["samples"]], tmp_path / "s", suite=["reference-loss"])
    assert {suite.suite for suite in alone.results.suites} == {"reference-loss/samples"}
    with pytest.raises(ConfigError, match="suite 'divergence' needs samples, which ogpsa sample makes"):
        measured(MODEL_DIR, [data["assist"]], tmp_path / "t", suite=both)
    with pytest.raises(ConfigError, match="needs a model's own answers"):
        measured(MODEL_DIR, [data["assist"]], tmp_path / "u")
