"""Masks built from models on disk: against sorts in memory, set arithmetic, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data_registry.core.errors import ArtifactError, ConfigError, InputError, OgpsaError
from data_registry.core.manifest import as_input, read_manifest
from pipelines.commands import build_mask
from pipelines.configs.build_mask import BuildMaskConfig
from pipelines.configs.train import TrainSftConfig
from pipelines.core.artifact import write_artifact
from pipelines.masks import scores
from pipelines.masks.opening import check_model, check_shapes, open_mask
from pipelines.masks.principal import low_rank_part
from pipelines.masks.records import LAYERS_FILE, read_records
from pipelines.models.reference import resolve_model
from pipelines.weights.writing import natural
from tests.masks.small_models import flags_of, make_model, moved_model, parameters, tracked_run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "start")


@pytest.fixture(scope="module")
def change(model: Path) -> dict[str, Tensor]:
    torch.manual_seed(1)
    found = {
        name: torch.randn_like(p) * 10 ** float(torch.randint(-6, -2, ())) for name, p in parameters(model).items()
    }
    for row in found.values():
        row[torch.rand_like(row) < 0.3] = 0
    return found


def build(model: Path, out: Path, **options: Any) -> Path:
    values: dict[str, Any] = {"score": "magnitude", **options}
    return build_mask.run(BuildMaskConfig(model=str(model), out=out, **values)).path


def chosen(path: Path) -> dict[str, Tensor]:
    return flags_of(open_mask(path))


def top(values: dict[str, Tensor], ratio: float, names: list[str] | None = None) -> dict[str, Tensor]:
    """The largest by a stable sort in canonical order; zeros never."""
    order = sorted(names or values, key=natural)
    flat = torch.cat([values[name].flatten().float() for name in order]).numpy()
    places = np.argsort(-flat, kind="stable")[: int(ratio * len(flat) + 1e-9)]
    found = np.zeros(len(flat), dtype=bool)
    found[places] = True
    parts = torch.from_numpy(found & (flat > 0)).split([values[name].numel() for name in order])
    empty = {name: torch.zeros(value.shape, dtype=torch.bool) for name, value in values.items()}
    return empty | {name: part.view(values[name].shape) for name, part in zip(order, parts, strict=True)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(params=[1 << 20, 7], ids=lambda size: f"blocks of {size}")
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    # Random numbers come four at a time.
    size = int(request.param)
    monkeypatch.setattr(scores, "BLOCK_ELEMENTS", -(-size // 4) * 4)
    return size


def test_scores_of_weights_and_changes_whatever_the_size_of_blocks(
    model: Path, change: dict[str, Tensor], tmp_path: Path, block: int
) -> None:
    weights = parameters(model)
    assert same(
        chosen(build(model, tmp_path / "magnitude", ratio=0.1)), top({n: w.abs() for n, w in weights.items()}, 0.1)
    )
    run = tracked_run(model, tmp_path / "run", change)
    wanted = top({n: c.abs() for n, c in change.items()}, 0.1)
    assert same(chosen(build(model, tmp_path / "tracked", score="change", change=run, ratio=0.1)), wanted)
    end = moved_model(model, tmp_path / "end", change)
    wanted = top({n: (p - weights[n]).abs() for n, p in parameters(end).items()}, 0.1)
    assert same(chosen(build(model, tmp_path / "two", score="change", end=str(end), ratio=0.1)), wanted)


def test_random_scores_depend_on_seed_name_and_place_alone(
    model: Path, tmp_path: Path, block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    one = chosen(build(model, tmp_path / "one", score="random", ratio=0.2, seed=3))
    other = chosen(build(model, tmp_path / "other", score="random", ratio=0.2, seed=4))
    both = sum(int((one[name] & other[name]).sum()) for name in one)
    total = sum(int(flags.sum()) for flags in one.values())
    # Independent draws: a fifth of a fifth, with 5 standard deviations to both sides.
    assert abs(both / total - 0.2) < 5 * (0.16 / total) ** 0.5
    digest = sum(int((flags.flatten().nonzero() % 9973).sum()) for flags in one.values())
    known = tmp_path_factory.getbasetemp() / "digest-of-random"
    assert digest == int(known.read_text()) if known.exists() else known.write_text(str(digest))


def test_principal_weights_are_those_of_the_truncated_decomposition(model: Path, tmp_path: Path) -> None:
    values = {}
    for name, weight in parameters(model).items():
        values[name] = torch.zeros_like(weight)
        if weight.dim() == 2:
            U, S, V = torch.linalg.svd(weight.double(), full_matrices=False)
            values[name] = (U[:, :3] * S[:3] @ V[:3]).abs().float()
    found = chosen(build(model, tmp_path / "mask", score="principal", rank=3, ratio=0.1))
    wanted = top(values, 0.1)
    total = sum(int(flags.sum()) for flags in wanted.values())
    # Rounding may exchange the last few at the threshold.
    assert sum(int((found[name] != wanted[name]).sum()) for name in found) <= 0.004 * total
    assert sum(int(flags.sum()) for flags in found.values()) == total
    for shape in ((7, 30), (30, 7), (9, 9)):
        W = torch.randn(shape)
        U, S, V = torch.linalg.svd(W.double(), full_matrices=False)
        torch.testing.assert_close(
            torch.cat(low_rank_part(W, 4)), (U[:, :4] * S[:4] @ V[:4]).float(), rtol=1e-4, atol=1e-5
        )
        assert torch.equal(torch.cat(low_rank_part(W, 7 if 7 in shape else 9)), W)


def test_other_masks_join_in_their_order(model: Path, tmp_path: Path) -> None:
    paths = {seed: build(model, tmp_path / f"random-{seed}", score="random", seed=seed, ratio=0.4) for seed in range(3)}
    bits = {seed: chosen(path) for seed, path in paths.items()}
    own = chosen(build(model, tmp_path / "own", ratio=0.3, exclude=["*embed*", "*norm*"]))
    assert not any(flags.any() for name, flags in own.items() if "embed" in name or "norm" in name)
    joined = build(
        model, tmp_path / "joined", ratio=0.3, exclude=["*embed*,*norm*"], union=[paths[0]], intersect=[paths[1]],
        minus=[paths[2]],
    )  # fmt: skip
    wanted = {name: (own[name] | bits[0][name]) & bits[1][name] & ~bits[2][name] for name in own}
    assert same(chosen(joined), wanted)
    roles = [record.role for record in read_manifest(joined).inputs]
    assert roles == ["model", "union", "intersect", "minus"]
    records = {record.parameter: record for record in read_records(joined / LAYERS_FILE)}
    assert {name: record.selected for name, record in records.items()} == {n: int(w.sum()) for n, w in wanted.items()}
    summary = read_manifest(joined).summary
    assert summary["selected"] == sum(int(flags.sum()) for flags in wanted.values())
    with pytest.raises(InputError, match="the other masks leave none of the"):
        build(model, tmp_path / "empty", score="random", seed=0, ratio=0.4, minus=[paths[0]])
    assert not (tmp_path / "empty").exists()


def test_a_mask_is_a_sixteenth_of_the_model_in_bf16_and_names_each_weight_once(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", tied=True)
    mask = build(model, tmp_path / "mask", ratio=0.25, include=["*mlp*"])
    description = open_mask(mask).description
    here = parameters(model)
    assert description.shapes == {name: list(here[name].shape) for name in sorted(here, key=natural)}
    assert "lm_head.weight" not in description.shapes
    total = sum(p.numel() for p in here.values())
    bytes_of_bits = sum(-(-p.numel() // 8) for p in here.values())
    size = sum(path.stat().st_size for path in mask.glob("mask-*.safetensors"))
    # Beside the bits there is room for a header.
    assert 0 < size - bytes_of_bits < 400 * len(here)
    assert abs(16 * bytes_of_bits / (2 * total) - 1) < 1e-2
    assert {name.split(".")[3] for name in description.eligible} == {"mlp"}
    assert description.num_chosen == description.num_wanted == description.num_eligible // 4
    threshold = float.fromhex(description.cuts[0].threshold)
    values = torch.cat([here[name].abs().flatten() for name in description.eligible])
    assert int((values > threshold).sum()) + description.cuts[0].ties_taken == description.num_chosen


def test_a_band_and_the_shortfall_are_told(model: Path, change: dict[str, Tensor], tmp_path: Path) -> None:
    run = tracked_run(model, tmp_path / "run", change)
    whole = chosen(build(model, tmp_path / "whole", score="change", change=run, ratio=0.3))
    first = chosen(build(model, tmp_path / "first", score="change", change=run, ratio=0.1))
    band = chosen(build(model, tmp_path / "band", score="change", change=run, ratio=0.3, skip_top=0.1))
    assert same(band, {name: whole[name] & ~first[name] for name in whole})
    most = build(model, tmp_path / "most", score="change", change=run, ratio=1.0)
    moved = {name: row != 0 for name, row in change.items()}
    assert same(chosen(most), moved)
    short = sum(row.numel() - int((row != 0).sum()) for row in change.values())
    assert read_manifest(most).summary["short_of_the_ratio"] == short
    least = chosen(build(model, tmp_path / "least", score="change", change=run, ratio=0.1, order="least"))
    assert not any((least[name] & moved[name]).any() for name in moved)


def test_a_finished_mask_is_up_to_date_and_no_other_is_put_over_it(model: Path, tmp_path: Path) -> None:
    config = BuildMaskConfig(model=str(model), score="random", out=tmp_path / "mask")
    assert not build_mask.run(config).up_to_date
    assert build_mask.run(config).up_to_date
    with pytest.raises(ArtifactError, match="made with other settings: ratio"):
        build(model, tmp_path / "mask", score="random", ratio=0.2)
    assert dict(build_mask.plan(config))["among"].endswith("of 20 parameters")


def test_saved_weights_in_bf16_do_not_tell_small_changes(tmp_path: Path) -> None:
    start = make_model(tmp_path / "start", dtype=torch.bfloat16)
    torch.manual_seed(2)
    small = {name: torch.randn_like(p, dtype=torch.float32) * 1e-6 for name, p in parameters(start).items()}
    end = moved_model(start, tmp_path / "end", small)
    with pytest.raises(InputError, match=r"differences are exactly 0.*BF16") as caught:
        build(start, tmp_path / "mask", score="change", end=str(end))
    assert "--track-change" in str(caught.value)
    large = moved_model(start, tmp_path / "large", {name: row * 1e6 for name, row in small.items()})
    build(start, tmp_path / "mask", score="change", end=str(large))
    other = make_model(tmp_path / "other", dtype=torch.float32)
    with pytest.raises(InputError, match=r"is stored as BF16 in .* and as F32"):
        build(start, tmp_path / "no", score="change", end=str(other))


def test_warm_ups_that_do_not_fit_are_refused(model: Path, change: dict[str, Tensor], tmp_path: Path) -> None:
    refused: dict[str, tuple[Path, type[OgpsaError], str]] = {
        "untracked": (tracked_run(model, tmp_path / "none", {}), InputError, "has not tracked its change"),
        "other start": (
            tracked_run(make_model(tmp_path / "other", seed=9), tmp_path / "elsewhere", change),
            ArtifactError,
            "started from another model",
        ),
        "adapters": (
            tracked_run(model, tmp_path / "lora", {"base.lora_A.weight": torch.ones(3)}),
            InputError,
            "tracked the change of 1 tensors",
        ),
    }
    for name, (run, kind, says) in refused.items():
        with pytest.raises(kind, match=says):
            build(model, tmp_path / f"mask {name}", score="change", change=run)
    with pytest.raises(ConfigError, match=r"--include \*\.mpl\.\* names no parameter of the model"):
        build(model, tmp_path / "pattern", include=["*.mpl.*"])
    with pytest.raises(ConfigError, match="leave no parameter"):
        build(model, tmp_path / "nothing", include=["*mlp*"], exclude=["*"])
    with pytest.raises(InputError, match="--ratio of so few weights is none"):
        build(model, tmp_path / "few", include=["model.norm.weight"], ratio=0.01)


def test_a_mask_fits_its_model_and_what_was_trained_from_it(
    model: Path, change: dict[str, Tensor], tmp_path: Path
) -> None:
    mask = open_mask(build(model, tmp_path / "mask", score="random"))
    start = resolve_model(str(model)).input_record()
    check_model(mask, start)
    first = tracked_run(model, tmp_path / "first", change)
    second = tmp_path / "second"
    config = TrainSftConfig(model=str(first), data=[Path("data")], out=second)
    with write_artifact(second, "run", config, [as_input("model", first, read_manifest(first))]) as writer:
        (writer.path / "file").write_text("a model")
    check_model(mask, as_input("model", second, read_manifest(second)))
    other = resolve_model(str(make_model(tmp_path / "other", seed=5))).input_record()
    with pytest.raises(ArtifactError, match="was chosen for another model"):
        check_model(mask, other)
    shapes = dict(mask.description.shapes)
    check_shapes(mask, shapes, "LlamaForCausalLM")
    name = "model.layers.1.mlp.up_proj.weight"
    for wrong in ({**shapes, name: [24, 40]}, {key: value for key, value in shapes.items() if key != name}):
        with pytest.raises(ArtifactError) as caught:
            check_shapes(mask, wrong, "LlamaForCausalLM")
        assert caught.value.where is not None
        assert name in caught.value.where
    text = json.loads((tmp_path / "mask" / "mask.json").read_text())
    (tmp_path / "mask" / "mask.json").write_text(json.dumps({**text, "unknown": 1}))
    with pytest.raises(ArtifactError, match="does not verify"):
        open_mask(tmp_path / "mask")
