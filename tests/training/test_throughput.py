"""How fast training is: the count of operations against torch's own, tokens counted once, and what a run says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from pipelines.commands import train_sft
from pipelines.configs.train import TrainSftConfig
from pipelines.engine.peaks import PEAKS, peak_flops, peak_of
from pipelines.models.lora import add_adapters
from pipelines.models.training_cost import TrainingCost, training_cost
from pipelines.training import throughput as throughput_module
from pipelines.training.throughput import Throughput, counts
from tests.distributed import worlds

LENGTH, ROWS = 96, 2


def model_of(**options: Any) -> Any:
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 8, "vocab_size": 300}
    config = LlamaConfig(
        **{**sizes, **options}, num_attention_heads=4, num_key_value_heads=2, attn_implementation="eager"
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def lora(model: Any) -> Any:
    return add_adapters(model, {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": "all-linear"}, seed=0)


def frozen(model: Any, *, below: int) -> Any:
    model.model.embed_tokens.requires_grad_(False)
    for layer in model.model.layers[:below]:
        layer.requires_grad_(False)
    return model


MODELS: dict[str, Any] = {
    "all parameters": lambda: model_of(),
    "tied embeddings": lambda: model_of(tie_word_embeddings=True),
    "adapters": lambda: lora(model_of()),
    "embeddings frozen": lambda: frozen(model_of(), below=0),
    "half of the layers frozen": lambda: frozen(model_of(), below=4),
    "heads wider than the model": lambda: model_of(head_dim=48),
}


@pytest.mark.parametrize("kind", list(MODELS))
def test_the_count_is_that_of_torch(kind: str) -> None:
    model = MODELS[kind]().train()
    ids = torch.randint(0, 300, (ROWS, LENGTH))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    cost = training_cost(model)
    assert cost.of(ROWS * LENGTH, ROWS * LENGTH**2) == pytest.approx(counter.get_total_flops(), rel=0.03)
    # What is measured is not all in one part.
    assert 0.05 < cost.per_pair * LENGTH / cost.per_token < 1


def test_experts_count_as_often_as_they_see_a_token() -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    def cost(experts: int, seen: int) -> float:
        config = MixtralConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, vocab_size=50, num_attention_heads=2,
            num_key_value_heads=2, num_local_experts=experts, num_experts_per_tok=seen,
        )  # fmt: skip
        return training_cost(MixtralForCausalLM(config)).per_token

    matrices, layers, gate = 3 * 32 * 64, 2, 32
    assert cost(8, 2) - cost(8, 1) == pytest.approx(6 * layers * matrices)
    assert cost(8, 2) - cost(4, 2) == pytest.approx(6 * layers * gate * 4, abs=6 * layers * gate * 4)


def test_padding_is_not_counted_and_sequences_in_a_row_are_apart() -> None:
    ids, mask = torch.zeros(2, 5, dtype=torch.int64), torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    assert counts({"input_ids": ids, "attention_mask": mask}).tolist() == [8, 25 + 9]
    packed = {"input_ids": ids[:1], "position_ids": torch.tensor([[0, 1, 0, 1, 2]])}
    assert counts(packed).tolist() == [5, 4 + 9]
    assert counts({"input_ids": ids}).tolist() == [10, 50]


def test_figures_are_of_the_time_within_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(throughput_module.time, "monotonic", lambda: now[0])
    meter = Throughput(TrainingCost(per_token=3.0, per_pair=1.0), peak=50.0)
    for _ in range(2):
        meter.begin_step()
        meter.count({"input_ids": torch.zeros(2, 5, dtype=torch.int64)})
        now[0] += 4
        meter.end_step()
        now[0] += 1000  # Something else, such as a checkpoint.
    recent = meter.recent()
    assert recent == pytest.approx({"tokens_per_second": 20 / 8, "mfu": (3 * 20 + 100) / (8 * 50)})
    assert meter.recent() == {}
    # A run that goes on elsewhere has the same whole.
    other = Throughput(None, None)
    other.restore([meter.state()], 0)
    assert other.overall() == pytest.approx({"train_tokens": 20.0, "train_tokens_per_second": 20 / 8})
    alone = Throughput(None, None)
    alone.restore([[10.0, 30.0, 4.0], [6.0, 10.0, 4.0]], None)
    assert alone.overall() == pytest.approx({"train_tokens": 16.0, "train_tokens_per_second": 4.0})


def test_only_passes_that_train_are_counted() -> None:
    model, meter = model_of(num_hidden_layers=1), Throughput(None, None)
    meter.watch(model)
    ids = torch.zeros(1, 7, dtype=torch.int64)
    model.train()(input_ids=ids)
    with torch.no_grad():
        model(input_ids=ids)
    model.eval()(ids)
    assert meter.state()[0] == 7


@pytest.mark.parametrize(
    ("name", "arithmetic", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A10", "bf16", 125),
        ("NVIDIA A10G", "bf16", 70),
        ("NVIDIA H100 80GB HBM3", "bf16", 989),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H200", "tf32", 494),
        ("NVIDIA L40S", "bf16", 362),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("Tesla V100-SXM2-32GB", "fp16", 125),
        ("Tesla V100-PCIE-16GB", "fp16", 112),
        ("Tesla V100-SXM2-32GB", "bf16", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "bf16", None),
        ("NVIDIA GeForce GTX 1080", "fp32", None),
    ],
)
def test_peaks_are_found_by_the_name_of_the_device(name: str, arithmetic: Any, tflops: float | None) -> None:
    assert peak_flops(name, arithmetic) == (None if tflops is None else tflops * 1e12)


def test_the_documented_table_is_the_one_in_use() -> None:
    assert peak_of(torch.device("cpu"), "bf16") is None
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    for name, values in PEAKS.items():
        cells = [f"{values[kind]:g}" if kind in values else "-" for kind in ("bf16", "fp16", "tf32", "fp32")]
        assert f"| {name} | {' | '.join(cells)} |" in page, name


def test_a_run_says_how_fast_it_was(tmp_path: Path) -> None:
    worlds.make_model(tmp_path / "model")
    worlds.make_data(tmp_path / "data", 8, seed=1)
    config = TrainSftConfig(
        model=str(tmp_path / "model"), data=tmp_path / "data", out=tmp_path / "run", precision="fp32", log_every=1,
        batch_size=2, accumulation=2, epochs=2,
    )  # fmt: skip
    run = train_sft.run(config).path
    tokens = sum(len(row["input_ids"]) for row in worlds.encoded(tmp_path / "data", tmp_path / "model"))
    summary = json.loads((run / "manifest.json").read_text())["summary"]
    assert summary["train_tokens"] == 2 * tokens
    assert summary["train_tokens_per_second"] > 0
    assert "train_mfu" not in summary
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(line["tokens_per_second"] > 0 for line in lines if "loss" in line)
    # Anchor rows are passed through the model too.
    worlds.make_data(tmp_path / "other", 8, seed=2)
    anchored = {"anchor": [tmp_path / "other"], "anchor_kind": "ce", "anchor_ratio": 0.5, "out": tmp_path / "anchored"}
    again = train_sft.run(TrainSftConfig.model_validate({**config.model_dump(), **anchored})).path
    with_anchor = json.loads((again / "manifest.json").read_text())["summary"]
    longest = max(len(row["input_ids"]) for row in worlds.encoded(tmp_path / "other", tmp_path / "model"))
    assert 2 * tokens < with_anchor["train_tokens"] <= 2 * tokens + 16 * longest
