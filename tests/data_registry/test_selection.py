"""Duplicates, the draw, staging, the Arrow folder and the ordered map."""

import os
import random
import signal

import pyarrow as pa
import pytest

from data_registry.core import stopping
from data_registry.core.errors import InputError
from data_registry.preparing.arrow_folder import ArrowFolder, Staging
from data_registry.preparing.selection import Draw, Duplicates
from data_registry.schema import arrow_schema, content_hash, sft_row
from pipelines.core import parallel
from pipelines.core.parallel import ordered_map


def row(number):
    return sft_row([{"role": "user", "content": f"q {number}"}, {"role": "assistant", "content": f"a {number}"}])


HASHES = [content_hash(row(i)) for i in range(3000)]


def drawn(hashes, size, seed):
    draw = Draw(size, seed)
    admitted = [digest for digest in hashes if draw.admit(digest)]
    return [admitted[number] for number in draw.drawn()], len(admitted)


def test_draw_is_independent_of_order_and_in_the_order_of_the_source():
    first, _ = drawn(HASHES, 100, 7)
    assert first == sorted(first, key=HASHES.index)
    shuffled = random.Random(1).sample(HASHES, len(HASHES))
    again, _ = drawn(shuffled, 100, 7)
    assert set(first) == set(again)
    assert len(set(first)) == 100


def test_draw_depends_on_the_seed_and_is_uniform():
    counts = dict.fromkeys(HASHES[:300], 0)
    for seed in range(200):
        for digest in drawn(HASHES[:300], 30, seed)[0]:
            counts[digest] += 1
    # Each row is drawn in a tenth of 200 draws: 20 +- 4.24. Chi-squared over 299 degrees of freedom, 99.9 %: 376.
    assert sum((count - 20) ** 2 / (200 * 0.1 * 0.9) for count in counts.values()) < 376
    assert drawn(HASHES, 50, 0)[0] != drawn(HASHES, 50, 1)[0]


def test_a_larger_draw_holds_the_smaller_and_few_rows_are_staged():
    small, _ = drawn(HASHES, 50, 3)
    large, admitted = drawn(HASHES, 200, 3)
    assert set(small) < set(large)
    # Expected: size * (1 + ln(rows / size)) = 742.
    assert admitted < 900


def test_draw_of_more_than_there_are_takes_all():
    assert drawn(HASHES[:10], 20, 0)[0] == HASHES[:10]


def test_duplicates():
    duplicates = Duplicates()
    assert [duplicates.is_new(digest) for digest in [HASHES[0], HASHES[1], HASHES[0]]] == [True, True, False]


def batches(count, size):
    for start in range(0, count, size):
        yield pa.RecordBatch.from_pylist([row(i) for i in range(start, start + size)], schema=arrow_schema("sft"))


def test_staged_rows_are_selected_by_number(tmp_path):
    staging = Staging(tmp_path / "s", arrow_schema("sft"))
    for batch in batches(100, 10):
        staging.write(batch)
    numbers = [0, 9, 10, 55, 56, 99]
    rows = [line for batch in staging.select(numbers) for line in batch.to_pylist()]
    assert rows == [row(number) for number in numbers]
    assert not (tmp_path / "s").exists()


def test_arrow_folder_opens_with_the_library(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr("data_registry.preparing.arrow_folder._SHARD_BYTES", 500)
    with ArrowFolder(tmp_path, arrow_schema("sft"), licence="MIT", citation="x") as folder:
        for batch in batches(100, 10):
            folder.write(batch)
        folder.finish()
    assert len(list(tmp_path.glob("*.arrow"))) > 2
    loaded = datasets.load_from_disk(str(tmp_path))
    assert loaded.to_list() == [row(i) for i in range(100)]
    assert loaded.info.license == "MIT"
    assert loaded.features == datasets.Features.from_arrow_schema(arrow_schema("sft"))


def square(number):
    if number < 0:
        raise InputError("negative", where=f"item {number}")
    return number * number


def end(number):
    os._exit(3)


def test_ordered_map_is_the_same_for_any_number_of_workers():
    assert list(ordered_map(square, range(50), num_workers=3)) == list(ordered_map(square, range(50)))


def test_errors_of_workers_keep_their_place():
    with pytest.raises(InputError, match="negative") as caught:
        list(ordered_map(square, [1, -2, 3], num_workers=2))
    assert caught.value.where == "item -2"


def test_a_killed_worker_is_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setattr(parallel, "_SAME_SIGNAL_S", 0.0)
    with pytest.raises(InputError, match="memory") as caught:
        list(ordered_map(end, range(3), num_workers=2))
    assert "--num-workers" in caught.value.fix


def test_workers_that_end_by_a_signal_to_all_are_no_error(monkeypatch):
    monkeypatch.setattr(stopping, "_received", signal.SIGTERM)
    with pytest.raises(stopping.StopRequested, match="SIGTERM"):
        list(ordered_map(end, range(3), num_workers=2))


def test_a_source_is_read_no_faster_than_it_is_worked_off():
    taken = []

    def source():
        for number in range(100):
            taken.append(number)
            yield number

    results = ordered_map(square, source(), num_workers=2)
    next(results)
    assert len(taken) <= 5
    results.close()
