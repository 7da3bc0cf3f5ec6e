"""What must hold on a GPU, in one launch, on whatever device there is: ``-m tests.gpu.worker DIRECTORY PART...``.

Every part stands for a test of the suite that runs on processors, and uses its worlds and its comparisons. The plain
loops run on the processor in any case: they are what training must equal wherever it runs. Parts that fail do not keep
the others from running. TF32 is off, as it is for users who do not ask for it.
"""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from data_registry.testbed import MODEL_DIR
from pipelines.commands import build_basis
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.core.job import on_main, rank, world_size
from pipelines.engine import processes
from pipelines.evaluation.answering.backend import TransformersBackend
from pipelines.evaluation.answering.requests import Request
from pipelines.evaluation.contract.answer import Decoding
from pipelines.tokens.tokenizer import load_tokenizer
from pipelines.training import sft
from tests.distributed import anchors_worker, equality_worker, masks_worker
from tests.distributed.ranks import forget_engine, write_findings
from tests.evaluation.test_generation import prompts
from tests.invariant import invariants_worker, resume_worker

Findings = dict[str, Any]
ENGINES: dict[str, dict[str, Any]] = {
    "no engine": {},
    "zero0": {"zero": 0},
    "zero1": {"zero": 1},
    "zero2": {"zero": 2},
    "zero2-offload": {"zero": 2, "offload": True},
    "zero3": {"zero": 3},
    "zero3-offload": {"zero": 3, "offload": True},
}
# Where gradients and masters lie differs between these; the rest follows from one of them.
FEW = ("no engine", "zero2", "zero3-offload")
BF16 = ("no engine", "zero0", "zero2", "zero3", "zero3-offload")
LIMIT = 24


def fp32(directory: Path, engines: Mapping[str, dict[str, Any]] = ENGINES, spaces: Any = ("gradient", "update")) -> Any:
    """The largest difference of a weight from plain PyTorch, of norms relatively, and how much projection changes."""
    world = on_main(lambda: equality_worker.make_world(directory, tied=False))
    basis = _basis(directory, world)
    found: Findings = {}
    forget_engine()
    naive, _ = equality_worker.plain_run(world[0], world[1], [], "gradient")
    expected = {space: equality_worker.plain_run(*world, space) for space in spaces}
    for space, (wanted, norms) in expected.items():
        found[f"effect of {space}"] = max(float((wanted[key] - naive[key]).abs().max()) for key in naive)
        for name, engine in engines.items():
            run = _trained(directory / f"{name}-{space}", world, basis, space, engine)
            if rank() == 0:
                saved = load_file(run / "model" / "model.safetensors")
                found[f"{name}, {space}"] = {
                    "difference": max(float((saved[key] - wanted[key]).abs().max()) for key in wanted),
                    "norms": equality_worker.worst_ratio(equality_worker.logged_norms(run), norms),
                }
    return found


def bf16(directory: Path, engines: Any = BF16) -> Findings:
    """How far the change of all weights is from that of a plain loop under autocast, in lengths of that change.

    bf16 has 8 bits, so that a small element of a gradient says little, and Adam scales it up: changes agree as a whole
    and not element by element. That of float32 is as far off (0.035): bf16 makes it so. Weights start at numbers of
    bf16, and the master weights count: DeepSpeed saves bf16, which holds few of these changes.
    """
    world = on_main(lambda: equality_worker.make_world(directory, tied=False))
    start = {name: weight.bfloat16().float() for name, weight in load_file(world[0] / "model.safetensors").items()}
    on_main(lambda: save_file(start, world[0] / "model.safetensors", metadata={"format": "pt"}))
    basis = _basis(directory, world)
    forget_engine()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wanted, _ = equality_worker.plain_run(*world, "gradient")
    naive, _ = equality_worker.plain_run(world[0], world[1], [], "gradient")
    found: Findings = {"without projection": _distance(naive, wanted, start)}
    for name in engines:
        masters: dict[str, Tensor] = {}
        with masters_at_the_end(masters):
            _trained(directory / name, world, basis, "gradient", {**ENGINES[name], "precision": "bf16"})
        found[name] = _distance(masters, wanted, start)
    return found


@contextlib.contextmanager
def masters_at_the_end(into: dict[str, Tensor]) -> Iterator[None]:
    """Keeps the master weights of a run of one process."""
    real = sft.steps.save_run

    def save_run(trainer: Any, *args: Any) -> Any:
        access = trainer.transforms.access
        for shard, master in zip(access.shards, access.masters(), strict=True):
            into[access.names[shard.tensor]] = master.weights().float().cpu().clone()
        return real(trainer, *args)

    with mock.patch.object(sft.steps, "save_run", save_run):
        yield


def _distance(one: dict[str, Tensor], other: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    def flat(weights: dict[str, Tensor]) -> Tensor:
        return torch.cat([weights[name].double().flatten() - start[name].double().flatten() for name in sorted(start)])

    return float((flat(one) - flat(other)).norm() / flat(other).norm())


def _basis(directory: Path, world: tuple[Path, Path, list[Path]]) -> Path:
    forget_engine()
    basis = directory / "basis"
    config = BuildBasisConfig(model=str(world[0]), reference=world[2], out=basis, precision="fp32", batch_size=3)
    build_basis.run(config)
    return basis


def _trained(directory: Path, world: Any, basis: Path, space: str, engine: dict[str, Any]) -> Path:
    forget_engine()
    return equality_worker.trained_weights(directory, world[0], world[1], basis, space, 2, engine)


def refresh(directory: Path) -> Findings:
    """What differs between a run without a basis and one that computes rows before every step and uses none."""
    world = on_main(lambda: invariants_worker.World(directory))
    config = BuildBasisConfig(
        model=str(world.model), reference=world.pools, out=world.basis, precision="fp32", batch_size=3
    )
    build_basis.run(config)
    found: Findings = {}
    for name, engine in ENGINES.items():
        without = invariants_worker.fingerprint(*invariants_worker.train(world.config(f"{name}-plain", **engine)))
        options = {"basis": world.basis, "refresh_every": 1, **engine}
        trained = invariants_worker.train(world.config(f"{name}-thrown", **options), invariants_worker.throw_away)
        found[name] = invariants_worker.unequal(without, invariants_worker.fingerprint(*trained))
    return found


def resume(directory: Path) -> Findings:
    """What differs between a run that was stopped and went on, and one that was not; with dropout."""
    world = on_main(lambda: resume_worker.World(directory))
    world = resume_worker.World(directory, made=True)
    found: Findings = {}
    for name in FEW:
        mode = {**resume_worker.SFT, **resume_worker.ALL, **resume_worker.MASKED, **ENGINES[name]}
        whole = resume_worker.never_stopped(world, name, mode)
        result = resume_worker.check_mode(world, name, mode, (resume_worker.WITHIN_SECOND,), whole)
        found[name] = {"differing": result["differing"], "said": result["said"]}
    return found


def anchors(directory: Path) -> Findings:
    """The largest difference of a weight from plain PyTorch, of anchored runs."""
    world = anchors_worker.World(directory)
    on_main(world.make)
    world.sample()
    basis = world.basis()
    found: Findings = {}
    cases = (("sft", "kl and prompt", "gradient"), ("sft", "hidden and prompt", ""))
    expected = {case: world.plain(*case) for case in cases}
    for (method, kind, space), wanted in expected.items():
        for name in FEW:
            label = f"{name}, {kind}"
            options = world.options(kind, method) | ENGINES[name]
            run = world.train(label, method, space, basis, 2, **options)
            if rank() == 0:
                found[label] = anchors_worker.distance(anchors_worker.weights_of(run), wanted)
    return found


def masks(directory: Path) -> Findings:
    """What masks promise and a run broke, and the largest difference of a weight from plain PyTorch."""
    world = masks_worker.World(directory)
    on_main(world.make)
    world.build()
    start, chosen = load_file(world.model / "model.safetensors"), world.chosen()
    found: Findings = {}
    expected = {way: world.plain(way) for way in ("sft, update", "sft, gradient, basis")}
    for way, wanted in expected.items():
        for name in FEW:
            run = world.train(name, way, **ENGINES[name])
            if rank() == 0:
                kept = masks_worker.promises(run, start, chosen)
                end = masks_worker.weights_of(run)
                kept["difference"] = max(float((end[key] - wanted[key]).abs().max()) for key in start)
                found[f"{name}, {way}"] = kept
    return found


def generation(directory: Path) -> Findings:
    """Answers of rows that come and go beside those of each prompt alone, and of a processor; greedy and sampled."""
    device, tokenizer = processes.start(), load_tokenizer(MODEL_DIR)
    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model, asked = Qwen2ForCausalLM(config).eval(), prompts(12)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    found: Findings = {}
    for name, decoding in (("greedy", Decoding(LIMIT)), ("sampled", Decoding(LIMIT, temperature=0.8, top_p=0.9))):
        seeds = list(range(len(asked)))
        backend = TransformersBackend(model.to("cpu"), tokenizer, decoding)
        on_cpu = backend.generate(asked, max_new_tokens=LIMIT, seeds=seeds)
        backend = TransformersBackend(model.to(device), tokenizer, decoding)
        requests = [
            Request(ids, LIMIT, seed, number) for number, (ids, seed) in enumerate(zip(asked, seeds, strict=True))
        ]
        made = {each.number: new for some in backend.continue_all([requests], batch_size=5) for each, new in some}
        together = [made[number] for number in range(len(asked))]
        alone = [
            backend.generate([prompt], max_new_tokens=LIMIT, seeds=[seed])[0]
            for prompt, seed in zip(asked, seeds, strict=True)
        ]
        found[name] = {
            "as alone": sum(one == other for one, other in zip(together, alone, strict=True)),
            "as on a processor": sum(one == other for one, other in zip(together, on_cpu, strict=True)),
            "prompts": len(asked),
            "different": len({tuple(answer) for answer in together}),
        }
    return found


def rehearsal(directory: Path) -> Findings:
    """What no other test runs on processors: the parts' own frame, with the least inside it."""
    return {
        "fp32": fp32(directory / "fp32", {"no engine": {}}, ("update",)),
        "bf16": bf16(directory / "bf16", ("no engine",)),
        "generation": generation(directory / "generation"),
    }


PARTS: dict[str, Callable[[Path], Findings]] = {
    "fp32": fp32,
    "bf16": bf16,
    "refresh": refresh,
    "resume": resume,
    "anchors": anchors,
    "masks": masks,
    "generation": generation,
}


def main(directory: Path, *names: str) -> None:
    device = processes.start()
    torch.set_num_threads(1)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        # Runs that must agree to the bit run twice; kernels without a deterministic form only warn.
        torch.use_deterministic_algorithms(True, warn_only=True)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    findings: Findings = {"device": name, "ranks": world_size(), "seconds": {}}
    for part in names or PARTS:
        started = time.monotonic()
        forget_engine()
        folder = directory / part
        on_main(lambda folder=folder: folder.mkdir())
        try:
            findings[part] = (PARTS | {"rehearsal": rehearsal})[part](folder)
        except Exception:
            if world_size() > 1:
                raise
            findings[part] = {"error": traceback.format_exc()[-4000:]}
        findings["seconds"][part] = time.monotonic() - started
        if rank() == 0:
            write_findings(directory, findings)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
