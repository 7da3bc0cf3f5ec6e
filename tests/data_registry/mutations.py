"""Files of every format with bits flipped, parts cut off and bytes spliced in; each is read as prepare-data reads it.

``python -m tests.data_registry.mutations FOLDER NUM SEED`` reads ``NUM`` of them in this process and prints a line for
each: its name before it is read, so that the last line names a file that ends the process, and its outcome after.
"""

from __future__ import annotations

import bz2
import collections
import gzip
import io
import json
import lzma
import random
import struct
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_registry.core.errors import OgpsaError
from data_registry.formats.detection import detect
from data_registry.prepared import _check_rows
from data_registry.preparing.reading import RowReader
from data_registry.preparing.selection import RejectedFile
from data_registry.schema import arrow_schema
from data_registry.sources.opening import Location, open_source

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"What is {i} and é東? {'x' * (i % 7)}"},
            {"role": "assistant", "content": f"It is {i}."},
        ],
        "kind": ("even", "odd")[i % 2],
        "number": i,
    }
    for i in range(40)
]
PAIRS = [{"question": f"What is {i}?", "answer": f'It is "{i}",\nI think.'} for i in range(40)]


def _arrow(rows: list[dict], opener, *, dictionary: bool = False, **options) -> bytes:
    table = pa.Table.from_pylist(rows)
    if dictionary:
        for index, name in enumerate(table.column_names):
            if pa.types.is_string(table.schema.field(name).type):
                table = table.set_column(index, name, table.column(name).dictionary_encode())
    sink = io.BytesIO()
    with opener(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in table.to_batches(max_chunksize=15):
            writer.write_batch(batch)
    return sink.getvalue()


def _parquet(rows: list[dict], **options) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=15, **options)
    return sink.getvalue()


def _zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def originals() -> dict[str, bytes]:
    """A whole file of each format, by a name with its suffix."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    csv = "question,answer\n" + "".join(
        f'{row["question"]},"{row["answer"].replace(chr(34), chr(34) * 2)}"\n' for row in PAIRS
    )
    return {
        "lines.jsonl": lines,
        "array.json": json.dumps(ROWS, ensure_ascii=False).encode(),
        "table.csv": csv.encode(),
        "gzip.jsonl.gz": gzip.compress(lines),
        "bzip2.jsonl.bz2": bz2.compress(lines),
        "xz.jsonl.xz": lzma.compress(lines),
        "zstd.jsonl.zst": _zstd(lines),
        "plain.parquet": _parquet(PAIRS, use_dictionary=False, compression="none"),
        "nested.parquet": _parquet(ROWS, compression="snappy"),
        "zstd.parquet": _parquet(ROWS, compression="zstd", write_page_checksum=True),
        "stream.arrow": _arrow(ROWS, pa.ipc.new_stream),
        "file.arrow": _arrow(ROWS, pa.ipc.new_file),
        "pairs.arrow": _arrow(PAIRS, pa.ipc.new_file),
        "dictionary.arrow": _arrow(PAIRS, pa.ipc.new_stream, dictionary=True, emit_dictionary_deltas=True),
        "compressed.arrow": _arrow(ROWS, pa.ipc.new_file, compression="zstd"),
        "prepared.rows": _arrow([{"messages": row["messages"]} for row in ROWS], pa.ipc.new_stream),
    }


def mutate(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """The bytes with a small change, and what was done."""
    changed, length = bytearray(data), len(data)
    kind = rng.choice(["flip", "flip", "word", "word", "cut", "splice", "remove", "repeat"])
    at = rng.randrange(length)
    if kind == "flip":
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(length)] ^= 1 << rng.randrange(8)
    elif kind == "word":
        values = (-1, 0, 1, 0x7FFFFF00, -0x80000000, length, length // 2, 1 << 20)
        at -= at % 4
        changed[at : at + 4] = struct.pack("<i", rng.choice(values))
    elif kind == "cut":
        del changed[at:]
    elif kind == "splice":
        changed[at : at + rng.choice([0, 8])] = rng.randbytes(rng.randint(1, 40))
    elif kind == "remove":
        del changed[at : at + rng.randint(1, 64)]
    else:
        changed[at:at] = changed[at : at + rng.randint(1, 400)]
    return kind, bytes(changed)


def read(path: Path) -> str:
    """Read a file as prepare-data does, up to the record of rejected rows; the outcome in a word."""
    if path.suffix == ".rows":
        return _read_prepared(path)
    try:
        source = open_source(Location("local", str(path)))
        source.inputs()
        layout = detect(source.sample())
        reader, rejected, used = RowReader(layout, "sft"), 0, 0
        with RejectedFile(path.with_suffix(".rejected")) as record:
            for chunk in source.chunks():
                outcome = reader(chunk)
                used += len(outcome.hashes)
                for rejection in outcome.rejected:
                    record.write(rejection)
                    rejected += 1
    except OgpsaError as error:
        return "refused" if len(str(error)) < 5000 else "FAILED with a message longer than a screen"
    return "all rows" if not rejected and used == len(ROWS) else "some rows"


def _read_prepared(path: Path) -> str:
    """The file of rows of a prepared data set, mapped into memory as ``datasets`` does, checked, and all rows taken."""
    import datasets

    from data_registry.core.arrow_values import DAMAGE

    try:
        rows = datasets.Dataset.from_file(str(path))
        _check_rows(rows.data, arrow_schema("sft"))
    except (pa.ArrowException, *DAMAGE):
        return "refused"
    return "all rows" if len(rows[:]["messages"]) == len(ROWS) else "some rows"


def main() -> None:
    """Read them all; exits with 1 if one ends in anything but rows or an error that is meant for the user."""
    folder, num, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    whole = originals()
    outcomes: collections.Counter[str] = collections.Counter()
    for index in range(num):
        rng = random.Random(f"{seed} {index}")
        name = list(whole)[index % len(whole)]
        kind, data = mutate(whole[name], rng) if index >= len(whole) else ("whole", whole[name])
        path = folder / f"{index}-{kind}-{name}"
        path.write_bytes(data)
        print(path.name, end=" ", flush=True)
        try:
            outcome = read(path)
        except Exception as error:  # noqa: BLE001 - that nothing else is raised is what is asked
            outcome = f"FAILED {type(error).__name__}: {str(error)[:200]}"
        print(outcome, flush=True)
        assert kind != "whole" or outcome == "all rows", f"{path.name}: {outcome}"
        outcomes[outcome.split(" ")[0] if outcome.startswith("FAILED") else outcome] += 1
    print(json.dumps(outcomes))
    sys.exit(1 if outcomes["FAILED"] else 0)


if __name__ == "__main__":
    main()
