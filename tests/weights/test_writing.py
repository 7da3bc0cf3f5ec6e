"""Files of tensors: what is written streaming is read by the library, whatever was cut where."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipelines.basis import storage
from pipelines.engine.shards.access import Shard
from pipelines.weights import pieces
from pipelines.weights.writing import MODEL, Layout, PlannedTensor, ShardedFiles, write_tensors, writing_order

DTYPES = (
    torch.float64,
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)


def plan_of(tensors: dict[str, Tensor]) -> list[PlannedTensor]:
    return writing_order([PlannedTensor(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()])


def mixed() -> dict[str, Tensor]:
    """Tensors of odd sizes and all dtypes, a number and an empty one among them."""
    torch.manual_seed(0)
    tensors = {f"layer.{i}": (torch.randn(3, 5 + i) * 9).to(dtype) for i, dtype in enumerate(DTYPES)}
    return {**tensors, "number": torch.tensor(7), "step": torch.tensor(3.0), "empty": torch.zeros(0, 4)}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_one_file_holds_tensors_of_all_dtypes(tmp_path: Path) -> None:
    tensors = mixed()
    write_tensors(tmp_path / "x.safetensors", tensors)
    assert_same(load_file(tmp_path / "x.safetensors"), tensors)
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        for name, tensor in tensors.items():
            if tensor.dim() == 2:
                assert torch.equal(file.get_slice(name)[1:3], tensor[1:3])


@pytest.mark.parametrize(
    ("layout", "lone"), [(MODEL, ["model.safetensors"]), (Layout("mask"), ["mask-00001-of-00001.safetensors"])]
)
def test_files_are_cut_by_size_and_named_by_their_number(tmp_path: Path, layout: Layout, lone: Sequence[str]) -> None:
    tensors = {name: tensor for name, tensor in mixed().items() if tensor.numel()}
    plan = plan_of(tensors)
    for folder, size in (("one", 10**6), ("many", 100)):
        (tmp_path / folder).mkdir()
        with ShardedFiles(tmp_path / folder, plan, size, layout) as files:
            for planned in plan:
                files.begin(planned.name, planned.dtype, planned.shape)
                for row in tensors[planned.name] if planned.shape else [tensors[planned.name]]:
                    files.write(row)
    names = sorted(path.name for path in (tmp_path / "one").glob("*.safetensors"))
    assert names == lone
    assert (tmp_path / "one" / layout.index).exists() == (layout is not MODEL)
    names = sorted(path.name for path in (tmp_path / "many").glob("*.safetensors"))
    assert len(names) > 3
    assert names == [f"{layout.stem}-{i + 1:05d}-of-{len(names):05d}.safetensors" for i in range(len(names))]
    index = json.loads((tmp_path / "many" / layout.index).read_text())
    assert index["metadata"] == {"total_size": sum(planned.num_bytes for planned in plan)}
    found = {name: load_file(tmp_path / "many" / file)[name] for name, file in index["weight_map"].items()}
    assert_same(found, tensors)
    for file in names:
        held = load_file(tmp_path / "many" / file)
        assert len(held) == 1 or sum(tensor.numel() * tensor.element_size() for tensor in held.values()) <= 100


def access_to(shapes: dict[str, int], parts: Sequence[tuple[int, int, int]]) -> SimpleNamespace:
    """What storage asks of a process's shards: ``(tensor, start, numel)`` each."""
    shards = [Shard(*part) for part in parts]
    return SimpleNamespace(
        names=list(shapes), numels=list(shapes.values()), shards=shards, replicated=True,
        rows_device=lambda: torch.device("cpu"),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_basis_is_written_in_files_of_bounded_size_and_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(storage, "MAX_FILE_BYTES", 200)
    torch.manual_seed(0)
    shapes = {"b": 15, "a": 7, "c": 90, "d": 1}
    rows = [torch.randn(3, numel) for numel in shapes.values()]
    whole = access_to(shapes, [(index, 0, numel) for index, numel in enumerate(shapes.values())])
    grams = storage.write_rows(tmp_path, whole, rows, dtype)
    count = len(list(tmp_path.glob("basis-*.safetensors")))
    assert count > 1
    index = json.loads((tmp_path / "basis.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {f"basis-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)}
    assert index["metadata"]["format"] == "ogpsa-basis"
    found = storage.read_rows(tmp_path, whole)
    assert grams is not None
    for block, row, gram in zip(found, rows, grams, strict=True):
        assert torch.equal(block, row.to(dtype))
        torch.testing.assert_close(gram, block.double() @ block.double().T)
    part = storage.read_rows(tmp_path, access_to(shapes, [(0, 4, 9), (2, 50, 40)]))
    assert torch.equal(part[0], rows[0][:, 4:13].to(dtype))
    assert torch.equal(part[1], rows[2][:, 50:].to(dtype))


def test_a_rank_holds_its_part_of_a_single_row_alone(tmp_path: Path) -> None:
    shapes = {"a": 1000, "b": 600}
    whole = access_to(shapes, [(index, 0, numel) for index, numel in enumerate(shapes.values())])
    storage.write_rows(tmp_path, whole, [torch.randn(1, numel) for numel in shapes.values()], torch.float32)
    for block in storage.read_rows(tmp_path, access_to(shapes, [(0, 200, 50), (1, 0, 300)])):
        assert block.untyped_storage().nbytes() == 4 * block.numel()


def test_a_basis_of_the_library_s_own_writer_is_read(tmp_path: Path) -> None:
    """As bases were written before: the names, the index and the rows of today's readers are theirs."""
    rows = {"a": torch.randn(2, 6), "b": torch.randn(2, 4)}
    files = [f"basis-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for file, (name, tensor) in zip(files, rows.items(), strict=True):
        save_file({name: tensor}, tmp_path / file, metadata={"format": "pt"})
    index = {"metadata": {"format": "ogpsa-basis"}, "weight_map": dict(zip(rows, files, strict=True))}
    (tmp_path / "basis.safetensors.index.json").write_text(json.dumps(index))
    found = storage.read_rows(tmp_path, access_to({"a": 6, "b": 4}, [(0, 0, 6), (1, 1, 2)]))
    assert torch.equal(found[0], rows["a"])
    assert torch.equal(found[1], rows["b"][:, 1:3])


def test_pieces_are_not_copied_before_they_are_written(tmp_path: Path) -> None:
    weight = torch.randn(8)
    writer = pieces.PieceWriter(tmp_path, 0)
    writer.add("weights", "layer.0", 0, weight[2:6])
    held = next(iter(writer._pending.values()))
    assert held.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()
    writer.finish()
    with pieces.PieceReader(tmp_path) as reader:
        assert torch.equal(reader.read("weights", "layer.0", 0, 4), weight[2:6])


def test_pieces_of_many_dtypes_are_put_together_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MAX_FILE_BYTES", 64)
    weight, rows = torch.randn(21), torch.randn(2, 21).to(torch.bfloat16)
    for rank, (start, stop) in enumerate(((0, 8), (8, 21))):
        writer = pieces.PieceWriter(tmp_path, rank)
        writer.add("weights", "layer.0", start, weight[start:stop])
        writer.add("whole.step", "layer.0", start, torch.tensor(5))
        writer.add("rows", "layer.0", start, rows[:, start:stop])
        writer.finish()
        assert len(writer.files) > 1
        assert all(path.name.startswith(f"pieces-{rank:05d}-") for path in writer.files)
    with pieces.PieceReader(tmp_path) as reader:
        assert reader.kinds("layer.0") == ["rows", "weights", "whole.step"]
        assert torch.equal(reader.read("weights", "layer.0", 5, 10), weight[5:15])
        assert torch.equal(reader.read("rows", "layer.0", 0, 21), rows)
        assert int(reader.whole("whole.step", "layer.0")) == 5
        with pytest.raises(KeyError, match="from 21 on are missing"):
            reader.read("weights", "layer.0", 20, 5)
