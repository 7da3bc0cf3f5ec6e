"""Arrow arrays from elsewhere: checked before a value is taken out, then taken out as far as Python can hold it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from data_registry.core.errors import first_line
from data_registry.core.unreadable import Unreadable

if TYPE_CHECKING:
    import pyarrow as pa

# What pyarrow raises, beside its own exceptions, for files whose content is damaged or forged.
DAMAGE: Final = (OSError, ValueError, KeyError, IndexError, TypeError, OverflowError, NotImplementedError, SystemError)
# What it raises for values that are whole in the file: times that no datetime can hold, zones that are not known, bytes
# that are not UTF-8, objects that name a key twice, types that need a library which is not there.
_NOT_HELD: Final = (*DAMAGE, ArithmeticError, ImportError, AttributeError, RecursionError)


def checked(batches: Iterable[pa.RecordBatch], *, as_text: bool = False) -> Iterator[pa.RecordBatch]:
    """The batches, each checked before it is given on: nothing in it points to where there is no memory of its own.

    Args:
        batches: the batches, read as they are asked for.
        as_text: take text that is not UTF-8 for damage; otherwise such values are found when rows are taken out.

    Raises:
        pyarrow.ArrowInvalid: a batch is damaged, or a column appears twice; the message names the column.
        UnicodeDecodeError: the name of a column is not UTF-8.
    """
    import pyarrow as pa

    for batch in batches:
        names = [_name(field) for field in batch.schema]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise pa.ArrowInvalid(f"the column '{twice}' appears twice")
        batch.validate()
        for name, column in zip(names, batch.columns, strict=True):
            try:
                if as_text:
                    column.validate(full=True)
                else:
                    _check(column)
            except pa.ArrowException as error:
                raise pa.ArrowInvalid(f"column '{name}': {first_line(error)}") from error
        yield batch


def _name(field: pa.Field) -> str:
    """The name of a column, or of a part of one; fails where it or one below it is not UTF-8."""
    for index in range(field.type.num_fields):
        _name(field.type.field(index))
    return str(field.name)


def _check(array: pa.Array) -> None:
    """Check an array whole. Text that is not UTF-8 is no damage of the array: the values are unreadable, one by one."""
    import pyarrow as pa

    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        # The check ended at the first such text. What it did not come to is checked part by part.
        kind = array.type
        if pa.types.is_struct(kind):
            for index in range(kind.num_fields):
                _check(array.field(index))
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            _check_list(array)
        elif pa.types.is_dictionary(kind):
            _check(array.dictionary)
            pa.DictionaryArray.from_arrays(array.indices, pa.nulls(len(array.dictionary)))
        elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise


def _check_list(array: pa.ListArray) -> None:
    import pyarrow as pa

    _check(array.values)
    # The same offsets over values in which nothing can be wrong.
    twin = pa.list_(pa.null()) if pa.types.is_list(array.type) else pa.large_list(pa.null())
    buffers, values = array.buffers()[:2], pa.nulls(len(array.values))
    pa.Array.from_buffers(twin, len(array), buffers, offset=array.offset, children=[values]).validate(full=True)


def rows_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a checked batch; what Python cannot hold is :class:`Unreadable`, at the depth where it stands."""
    names = batch.schema.names
    if not names:
        return [{} for _ in range(batch.num_rows)]
    labels = _class_names(batch.schema)
    columns = [
        _named(_values(column), labels[name]) if name in labels else _values(column)
        for name, column in zip(names, batch.columns, strict=True)
    ]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of the classes in each column that the library ``datasets`` has stored as numbers of classes.

    Its ``ClassLabel`` keeps the names in the schema's metadata alone. A row that is ``bad`` may hold 0 or 1.
    """
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {
            name: [str(label) for label in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _named(values: list[Any], names: Sequence[str]) -> list[Any]:
    """Numbers of classes as their names; -1 stands for no class."""
    return [
        (names[value] if 0 <= value < len(names) else None if value == -1 else value)
        if isinstance(value, int) and not isinstance(value, bool)
        else value
        for value in values
    ]


def _values(array: pa.Array) -> list[Any]:
    try:
        values = list(array.to_pylist())
    except _NOT_HELD:
        values = [_value(scalar) for scalar in array]
    return [_as_text(value) for value in values] if _has_bytes(array.type) else values


def _has_bytes(kind: pa.DataType) -> bool:
    """Whether a type is one of bytes, or has parts that are."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _has_bytes(kind.value_type)
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    return is_bytes or any(_has_bytes(kind.field(index).type) for index in range(kind.num_fields))


def _as_text(value: Any) -> Any:
    """A value with its bytes as text: tables of programs that do not tell the two apart hold texts as bytes."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            return Unreadable(f"a value of type binary that is not text in UTF-8: {error.reason}")
    if isinstance(value, dict):
        return {name: _as_text(part) for name, part in value.items()}
    return [_as_text(part) for part in value] if isinstance(value, list) else value


def _value(scalar: pa.Scalar) -> Any:
    import pyarrow as pa

    try:
        return scalar.as_py()
    except _NOT_HELD as error:
        kind = scalar.type
        if pa.types.is_struct(kind) and len({field.name for field in kind}) == kind.num_fields:
            return {field.name: _value(scalar[index]) for index, field in enumerate(kind)}
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            return [_value(part) for part in scalar.values]
        return Unreadable(f"a value of type {kind} that Python cannot hold: {first_line(error)}")
