"""projected() of trainers: plain Trainer, DPO, adapters; its own checkpoints, and what it refuses by name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments
from trl import DPOConfig, DPOTrainer

from data_registry.core.errors import ArtifactError, BasisMismatchError, ConfigError, EngineError, InputError
from pipelines import build_basis, projected
from pipelines.api.trainer import _refuse_unservable
from tests.api.worlds import World, example, largest_difference

QUIET: dict[str, Any] = {
    "use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no", "learning_rate": 1e-3,
    "max_steps": 2, "logging_steps": 1,
}  # fmt: skip


def trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def worst_overlap(change: dict[str, torch.Tensor], basis: Any) -> float:
    """The largest |cos| of the change with a row, over the tensors that are projected and that moved at all."""
    rows = basis.rows
    overlaps = [0.0]
    for name, tensor in change.items():
        flat = tensor.flatten().double()
        if flat.numel() > 8 and float(flat.norm()) > 0:
            row = rows[name].double()
            cosines = row @ flat / (row.norm(dim=1) * flat.norm()).clamp_min(1e-300)
            overlaps.append(float(cosines.abs().max()))
    return max(overlaps)


def padded(features: list[Any]) -> dict[str, torch.Tensor]:
    return example("rows").pad(features, 0)


def test_a_plain_trainer_with_adapters_accumulation_and_clipping(world: World, tmp_path: Any) -> None:
    model, tokenizer = world.load()
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    basis = build_basis(adapted, world.batches(tokenizer))
    before = trained(adapted)
    assert set(basis.rows) == set(before)
    arguments = TrainingArguments(
        tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=2, max_grad_norm=0.1, **QUIET
    )
    rows = example("rows").read(world.root / "safety-sft", tokenizer)
    trainer = projected(Trainer)(
        adapted, arguments, train_dataset=rows, data_collator=padded, basis=basis, space="update", refresh_every=0
    )
    trainer.train()
    change = {name: p - before[name] for name, p in trained(adapted).items()}
    assert all(bool(tensor.any()) for tensor in change.values())
    assert worst_overlap(change, basis) < 1e-3
    assert type(trainer).__name__ == "ProjectedTrainer"
    assert projected(Trainer) is projected(Trainer)


def test_dpo_and_the_trainer_as_it_is_without_a_basis(world: World, tmp_path: Any) -> None:
    pairs = datasets.Dataset.from_list(
        [
            {"prompt": f"the {word}", "chosen": " is not known .", "rejected": " is red and blue ."}
            for word in ("apple", "river", "stone", "cloud")
        ]
    )
    arguments = DPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=2, bf16=False, gradient_checkpointing=False, **QUIET
    )
    found = {}
    for name in ("projected", "without", "own"):
        model, tokenizer = world.load()
        before = trained(model)
        more: dict[str, Any] = {}
        if name == "projected":
            basis = build_basis(model, world.batches(tokenizer))
            more = {"basis": basis, "space": "update", "refresh_every": 0}
        elif name == "without":
            more = {"basis": None}
        make = DPOTrainer if name == "own" else projected(DPOTrainer)
        make(model=model, args=arguments, train_dataset=pairs, processing_class=tokenizer, **more).train()
        found[name] = {key: p - before[key] for key, p in trained(model).items()}
    assert largest_difference(found["without"], found["own"]) == 0.0
    assert worst_overlap(found["projected"], basis) < 1e-3 < worst_overlap(found["own"], basis)


def test_a_checkpoint_without_a_projection_and_a_foreign_basis_are_refused(world: World, tmp_path: Any) -> None:
    trl_sft = example("trl_sft")
    words = world.words("foreign", "update", "--save-steps", "1")
    words[words.index("--steps") + 1] = "1"
    trl_sft.train(trl_sft.parse(words), disable_tqdm=True)
    checkpoint = world.root / "foreign" / "checkpoint-1"
    (checkpoint / "projection" / "state.json").unlink()
    words = world.words("foreign-resumed", "update", "--resume", str(checkpoint))
    with pytest.raises(ArtifactError, match="no state of a projection"):
        trl_sft.train(trl_sft.parse(words), disable_tqdm=True)
    model, tokenizer = world.load()
    model.lm_head.requires_grad_(False)
    rows = example("rows").read(world.root / "safety-sft", tokenizer)
    arguments = TrainingArguments(tmp_path, **QUIET)
    trainer = projected(Trainer)(model, arguments, train_dataset=rows, data_collator=padded, basis=world.basis)
    with pytest.raises(BasisMismatchError, match=f"basis '{world.basis}' was built for 29 parameters"):
        trainer.train()


def test_what_cannot_be_served_is_refused_by_name(world: World, tmp_path: Any) -> None:
    served = {
        "is_fsdp_enabled": False,
        "accelerator": SimpleNamespace(parallelism_config=None),
        "args": SimpleNamespace(n_gpu=1, fp16=False, optim="adamw_torch", auto_find_batch_size=False),
    }
    _refuse_unservable(SimpleNamespace(**served))
    tensor_parallel = SimpleNamespace(parallelism_config=SimpleNamespace(tp_enabled=True))
    for change, name in (
        ({"is_fsdp_enabled": True}, "FSDP"),
        ({"is_distributed_loading_by_transformers": True}, "spreads over ranks"),
        ({"accelerator": tensor_parallel}, "tensor, context"),
        ({"args": SimpleNamespace(**{**vars(served["args"]), "n_gpu": 2})}, "DataParallel"),
        ({"args": SimpleNamespace(**{**vars(served["args"]), "fp16": True})}, "fp16"),
        ({"args": SimpleNamespace(**{**vars(served["args"]), "optim": "adalomo"})}, "optim=adalomo"),
    ):
        with pytest.raises(EngineError, match=name):
            _refuse_unservable(SimpleNamespace(**{**served, **change}))
    model, _ = world.load()
    arguments = TrainingArguments(tmp_path, auto_find_batch_size=True, **QUIET)
    with pytest.raises(EngineError, match="auto_find_batch_size"):
        projected(Trainer)(model, arguments, basis=world.basis)
    with pytest.raises(ConfigError, match="space is 'weights'"):
        projected(Trainer)(model, arguments, basis=world.basis, space="weights")
    with pytest.raises(InputError, match="does not exist"):
        projected(Trainer)(model, arguments, basis=tmp_path / "nothing")
    with pytest.raises(InputError, match="class of transformers' Trainer"):
        projected(torch.optim.SGD)  # type: ignore[type-var]
    with pytest.raises(InputError, match="a projection already"):
        projected(projected(Trainer))  # type: ignore[arg-type]
