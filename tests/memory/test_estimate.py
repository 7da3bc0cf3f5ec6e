"""Memory of a run: against sums by hand, published figures, and what torch counts in passes that are carried out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pipelines.configs.train import TrainSftConfig
from pipelines.core.config import resolve
from pipelines.memory.activations import Held, Pass, held_by
from pipelines.memory.clusters import smallest_cluster
from pipelines.memory.estimate import Edits, Engine, Estimate, estimate
from pipelines.memory.live import LiveBytes
from pipelines.memory.planning import engine_of
from pipelines.memory.shape import Lora, ModelShape, shape_of

P = 1000
WEIGHTS, GRADIENTS, STATE = "weights", "gradients", ("fp32 master weights", "optimizer state")


@pytest.mark.parametrize(
    ("options", "ranks", "weights", "gradients", "state", "host"),
    [
        # Bytes of a parameter: fp32 weights, gradients and two moments.
        ({}, 1, 4, 4, 8, 0),
        ({"zero": 0, "precision": "fp32"}, 4, 4, 4, 8, 0),
        # 16 with mixed precision, as ZeRO's authors count: bf16 weights and gradients, fp32 masters and moments.
        ({"zero": 0}, 4, 2, 2, 12, 0),
        ({"zero": 1}, 4, 2, 2, 12 / 4, 0),
        # Gradients are summed in fp32 from here on.
        ({"zero": 2}, 4, 2, 4 / 4, 12 / 4, 0),
        ({"zero": 3}, 4, 2 / 4, 4 / 4, 12 / 4, 0),
        ({"zero": 2, "offload": True}, 4, 2, 0, 0, (4 + 12) / 4),
        ({"zero": 3, "offload": True}, 8, 2 / 8, 0, 0, (4 + 12) / 8),
    ],
)
def test_bytes_of_a_parameter(
    options: dict[str, Any], ranks: int, weights: float, gradients: float, state: float, host: float
) -> None:
    config = resolve(TrainSftConfig, flags={"model": "m", "data": Path("d"), "out": Path("o"), **options})
    engine = engine_of(config, ranks, on_accelerator=False)
    found = estimate(ModelShape((P,), 0), engine, edits=Edits(), passes=Held())

    def bytes_of(*names: str) -> float:
        return sum(term.device for term in found.terms if term.name in names and term.part in ("always", "passes")) / P

    assert (bytes_of(WEIGHTS), bytes_of(GRADIENTS), bytes_of(*STATE)) == pytest.approx((weights, gradients, state))
    kept = [term for term in found.terms if term.name in (GRADIENTS, *STATE) and term.part in ("always", "passes")]
    assert sum(term.host for term in kept) / P == pytest.approx(host)


def test_seven_billion_parameters_need_the_published_memory() -> None:
    """ZeRO's paper (arXiv 1910.02054, figure 1) has 120 GB for 7.5 B parameters, and 31.4, 16.6, 1.9 GB on 64 GPUs."""
    shape = ModelShape((7_500_000_000,), 0)
    published = {0: 120.0, 1: 31.4, 2: 16.6, 3: 1.9}
    for stage, gigabytes in published.items():
        engine = Engine(stage, 64, bf16=True, wide_sums=False, on_accelerator=False)
        found = estimate(shape, engine, edits=Edits(), passes=Held())
        states = sum(
            term.device for term in found.terms if term.name in (WEIGHTS, GRADIENTS, *STATE) and term.part != "step"
        )
        assert states / 1e9 == pytest.approx(gigabytes, abs=0.06)


def test_edits_of_a_step() -> None:
    shape = ModelShape((600, 300, 100), 0)
    engine = Engine(2, 2, bf16=True, wide_sums=True, bucket=50, on_accelerator=False)
    edits = Edits(
        rows=2, row_elements=1000, keeps=True, held_elements=200, masked=True, mask_share=0.5, tracks_change=True
    )
    found = estimate(shape, engine, edits=edits, passes=Held(1e6, 2e5), refresh=Held(3e5))
    terms = {(term.name, term.part): term.device for term in found.terms}
    assert terms["rows of the basis", "always"] == 2 * 1000 * 4 / 2
    assert terms["mask", "always"] == 500 + 4 * 250
    assert terms["start of all weights", "always"] == 4 * 500
    # A rank has 500 elements, of which a tensor may be all.
    assert terms["weights from before the step", "step"] == 4 * 500
    assert terms["new rows", "refresh"] == terms["rows of the basis", "always"]
    assert terms["communication buckets", "passes"] == 2 * 50
    assert found.fullest == "passes"
    assert found.device == found.of("always") + 1e6 + 2e5 + 100 + 4 * 500
    alone = Engine(None, 1, bf16=False, wide_sums=False, on_accelerator=False)
    on_gpu = replace(alone, on_accelerator=True)
    for changes, kept in (({}, 600), ({"keeps_all": True}, 1000), ({"held_elements": 700}, 700)):
        some = estimate(shape, alone, edits=Edits(keeps=True, **{"held_elements": 200, **changes}), passes=Held())
        assert before_the_step(some) == {"step": 4 * kept}
    # What is needed in every step is held between steps on a processor, as far as a round goes.
    each = Edits(keeps=True, keeps_each_step=True, held_elements=200, round_elements=700)
    assert before_the_step(estimate(shape, alone, edits=each, passes=Held())) == {"always": 4 * 200, "step": 4 * 400}
    assert before_the_step(estimate(shape, on_gpu, edits=each, passes=Held())) == {"step": 4 * 700}


def before_the_step(found: Estimate) -> dict[str, float]:
    return {term.part: term.device for term in found.terms if term.name == "weights from before the step"}


def _model(directory: Path, layers: int = 5, key_heads: int = 2) -> Path:
    values = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 160,
        "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": key_heads, "vocab_size": 300,
        "max_position_embeddings": 64,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(values))
    return directory


def test_shapes_are_those_of_the_architecture(tmp_path: Path) -> None:
    directory = _model(tmp_path)
    shape = shape_of(directory)
    # Embeddings and head; by layer query and output, key and value, three of the perceptron, two norms; the last norm.
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160 + 2 * 64
    assert shape.num_parameters == shape.num_trained == 2 * 300 * 64 + 5 * layer + 64
    assert shape.largest == 300 * 64
    adapted = shape_of(directory, lora=Lora(4, "q_proj,down_proj"))
    assert (adapted.num_trained, adapted.frozen) == (5 * 4 * (64 + 64 + 160 + 64), shape.num_parameters)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_passes_hold_is_what_they_hold_with_values(tmp_path: Path, checkpointing: bool, key_heads: int) -> None:
    """Passes without memory, cut short, against all layers with real numbers in them."""
    directory = _model(tmp_path, key_heads=key_heads)
    what = Pass(3, 32, held_in_bf16=False, casts_to_bf16=False, checkpointing=checkpointing, on_accelerator=False)
    found = held_by(directory, what, 5)
    assert found is not None
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory), dtype=torch.float32).train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    ids, padded = torch.randint(300, (3, 32)), torch.ones(3, 32, dtype=torch.long)
    padded[0, :5] = 0
    kept = {}
    for name, mask in (("whole rows", None), ("padded rows", padded)):
        known = [*model.parameters(), *model.buffers(), ids, padded]
        with LiveBytes(known) as live:
            states = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            kept[name] = live.live
            del states
    # To the byte. Rows that need no padding need no mask of pairs either, and shared keys are then not repeated for it.
    assert found.activations == kept["padded rows"] > kept["whole rows"]
    if checkpointing:
        assert found.activations < 2 * 5 * 3 * 32 * 64 * 4 + 50_000


def test_adapters_are_gone_through_as_well(tmp_path: Path) -> None:
    directory = _model(tmp_path, layers=2)
    for bf16 in (False, True):
        what = Pass(3, 32, held_in_bf16=bf16, casts_to_bf16=False, checkpointing=False, on_accelerator=False)
        adapted, full = (held_by(directory, what, 2, lora=lora) for lora in (Lora(4, "all-linear"), None))
        assert adapted is not None
        assert full is not None
        # Their own states are kept too; the head has no gradient of its own.
        assert 0.5 * full.activations < adapted.activations < 1.5 * full.activations
        assert adapted.head < full.head


def test_tensors_count_while_they_live() -> None:
    with LiveBytes() as live:
        first = torch.zeros(100)
        view, second = first[:50], first + 1
        assert live.live == 800
        del first
        assert live.live == 800, "a view holds its storage"
        del view, second
        assert (live.live, live.peak) == (0, 800)


def test_the_smallest_cluster_comes_first() -> None:
    def needs(ranks: int, way: str) -> float:
        return (100 if way == "" else 60) / ranks

    assert smallest_cluster(needs, 30, ("",)).ranks == 4  # type: ignore[union-attr]
    best = smallest_cluster(needs, 70, ("", "--zero 3"))
    assert best is not None
    assert (best.ranks, best.options) == (1, "--zero 3")
    assert smallest_cluster(needs, 0.1, ("",)) is None
