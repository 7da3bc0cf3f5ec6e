"""Every preference loss that TRL offers, with stored reference log-probabilities against TRL with the model itself."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import AutoModelForCausalLM
from trl import DPOConfig, DPOTrainer

from data_registry.core.errors import ConfigError
from pipelines.commands import train_dpo
from pipelines.configs.train import TrainDpoConfig
from pipelines.models.reference import resolve_model
from pipelines.tokens.tokenizer import load_tokenizer
from pipelines.training import dpo
from pipelines.training.losses import _NOT_WEIGHTED, _USED_BY, check_loss, known_losses
from tests.distributed import worlds

NUM_PAIRS, BETA = 4, 0.3
# What a loss cannot do without, or is only then another one than sigmoid.
PARAMETERS: dict[str, dict[str, Any]] = {
    "robust": {"label_smoothing": 0.1},
    "exo_pair": {"label_smoothing": 1e-3},
    "aot": {"label_smoothing": 0.1},
    "aot_unpaired": {"label_smoothing": 0.2},
    "discopop": {"discopop_tau": 0.07},
    "sigmoid": {"f_divergence_type": "js_divergence"},
    "ipo": {"use_weighting": True},
    "sigmoid,bco_pair,sft": {"loss_weights": [0.8, 0.2, 1.0]},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("losses")
    worlds.make_model(directory / "model")
    worlds.make_pairs(directory / "pairs", NUM_PAIRS, seed=1)
    worlds.make_pairs(directory / "other", 5, seed=2)
    return directory


def options(world: Path, out: Path, loss: str, **given: Any) -> TrainDpoConfig:
    defaults = {"batch_size": NUM_PAIRS, "max_steps": 1, "trainer": PARAMETERS.get(loss, {})}
    beta = {} if loss == "sft" else {"beta": BETA}
    return TrainDpoConfig(
        model=str(world / "model"), data=world / "pairs", out=out, loss=loss, precision="fp32", accumulation=1,
        **{**beta, **defaults, **given},
    )  # fmt: skip


def load(world: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(world / "model", dtype=torch.float32)


def loss_and_gradient(trainer: DPOTrainer) -> tuple[float, torch.Tensor]:
    """On all pairs at once, at weights other than the reference's: the same for every trainer."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    trainer.model.train()
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(NUM_PAIRS)])
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.item(), torch.cat([parameter.grad.flatten() for parameter in trainer.model.parameters()])


@pytest.mark.parametrize("loss", [*known_losses(), "sigmoid,bco_pair,sft"])
def test_every_loss_is_trls_own(world: Path, tmp_path: Path, loss: str) -> None:
    config = options(world, world / "run", loss)
    config.out.mkdir(exist_ok=True)
    ours = dpo.make_trainer(config, resolve_model(config.model), None, config.out, torch.device("cpu"))
    assert ours.ref_model is None
    theirs = DPOTrainer(
        model=load(world),
        ref_model=load(world),
        args=DPOConfig(
            output_dir=str(tmp_path),
            loss_type=loss.split(","),
            beta=BETA,
            use_cpu=True,
            report_to=[],
            bf16=False,
            gradient_checkpointing=False,
            **PARAMETERS.get(loss, {}),
        ),
        train_dataset=datasets.load_from_disk(str(world / "pairs")),
        processing_class=load_tokenizer(world / "model"),
    )
    assert theirs.ref_model is not None
    (loss_of_ours, gradient_of_ours), (wanted, gradient) = loss_and_gradient(ours), loss_and_gradient(theirs)
    assert loss_of_ours == pytest.approx(wanted, rel=1e-5)
    assert float((gradient_of_ours - gradient).norm()) <= 1e-5 * float(gradient.norm())
    assert float(gradient.norm()) > 1e-3


def test_which_losses_cannot_be_weighted(world: Path) -> None:
    """Those that are refused, and no others: when TRL mends it, this fails and the refusal can go."""
    config = options(world, world / "run", "sigmoid")
    config.out.mkdir(exist_ok=True)
    trainer = dpo.make_trainer(
        options(world, config.out, "sigmoid", trainer={"use_weighting": True}),
        resolve_model(config.model), None, config.out, torch.device("cpu"),
    )  # fmt: skip
    failing = set()
    trainer.label_smoothing = 0.1
    for name in set(known_losses()) - {"aot", "aot_unpaired"}:
        trainer.loss_types = [name]
        try:
            loss_and_gradient(trainer)
        except RuntimeError:
            failing.add(name)
    assert failing == _NOT_WEIGHTED


def test_losses_are_those_that_trl_lists() -> None:
    listed = DPOConfig.__dataclass_fields__["loss_type"].metadata["help"]
    assert all(f"'{name}'" in listed for name in known_losses())
    assert len(known_losses()) == listed.split("If multiple")[0].count("`'")


def test_which_loss_knows_which_parameter() -> None:
    """As TRL's code has it: a later version that lets another loss take a parameter is noticed."""
    branches: dict[str, str] = {}
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(DPOTrainer._compute_loss)))):
        if isinstance(node, ast.If) and ast.unparse(node.test).startswith("loss_type == "):
            branches[ast.literal_eval(node.test.comparators[0])] = "\n".join(map(ast.unparse, node.body))
    assert sorted(branches) == known_losses()
    for parameter, users in _USED_BY.items():
        assert {name for name, code in branches.items() if f".{parameter}" in code} == users


@pytest.mark.parametrize(
    ("loss", "trainer", "said"),
    [
        ("sigmoyd", {}, "unknown loss 'sigmoyd' .did you mean 'sigmoid'"),
        ("sigmoid,", {}, "unknown loss ''"),
        ("sigmoid, sigmoid", {}, "the same loss twice"),
        ("sigmoid", {"label_smoothing": 0.1}, "'trainer.label_smoothing' has no effect on --loss sigmoid, only on aot"),
        ("ipo", {"discopop_tau": 0.1}, "'trainer.discopop_tau' has no effect on --loss ipo, only on discopop"),
        ("exo_pair", {}, "--loss exo_pair needs label smoothing"),
        (
            "robust",
            {"label_smoothing": 0.5},
            "--loss robust takes trainer.label_smoothing from 0 to below 0.5, not 0.5",
        ),
        ("aot", {"use_weighting": True}, "use_weighting weighs pairs, which --loss aot takes apart"),
        ("hinge", {"use_weighting": True}, "use_weighting with --loss hinge fails in TRL's backward pass"),
        ("sigmoid,sft", {"loss_weights": [1.0]}, "1 weights for 2 losses"),
        ("sigmoid", {"loss_weights": True}, "'trainer.loss_weights' is True, and should be a list of numbers"),
        ("sigmoid", {"loss_weights": ["much"]}, "should be a list of numbers"),
        ("robust", {"label_smoothing": "some"}, "'trainer.label_smoothing' is 'some', and should be a number"),
    ],
)
def test_what_a_loss_cannot_take(world: Path, tmp_path: Path, loss: str, trainer: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        train_dpo.plan(options(world, tmp_path / "run", loss, trainer=trainer))


def test_trls_own_refusals_are_errors_of_the_command(world: Path, tmp_path: Path) -> None:
    config = options(world, tmp_path / "run", "nca_pair", trainer={"f_divergence_type": "js_divergence"})
    check_loss(config)
    with pytest.raises(ConfigError, match=r"the trainer refuses its options: .*only supported for the following loss"):
        train_dpo.run(config)
    assert not config.out.exists()


@pytest.mark.parametrize("loss", ["aot", "sft"])
def test_a_held_out_loss_does_not_depend_on_the_batches(world: Path, tmp_path: Path, loss: str) -> None:
    """Even where a loss mixes the pairs of a batch."""
    measured = []
    for batch_size in (4, 2):
        given: dict[str, Any] = {"eval_data": world / "other", "batch_size": batch_size, "learning_rate": 1e-12}
        run = train_dpo.run(options(world, tmp_path / str(batch_size), loss, **given, trainer={})).path
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        measured += [line["eval_loss"] for line in lines if "eval_loss" in line]
    assert len(measured) == 2
    assert measured[0] == pytest.approx(measured[1], rel=1e-6)
