"""What tasks of one's own would run as a program: lm-eval's files of tasks may name functions, metrics and templates.

The tasks that come with lm-eval are as trustworthy as lm-eval itself. Others are only read here, and nothing that they
name is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data_registry.core.errors import InputError, first_line


@dataclass(frozen=True)
class Program:
    """Something in a file of a task that lm-eval would run: the file, and what it names, as it stands there."""

    file: Path
    what: str


def refuse_programs(manager: Any, names: Sequence[str]) -> None:
    """Refuse tasks that bring code of their own.

    Args:
        manager: lm-eval's list of tasks.
        names: tasks, groups and tags of it.

    Raises:
        InputError: one of them, or one that a group of them holds, does; the error names it, the file and the code.
    """
    for name in names:
        programs = [found for file in _files(manager.task_index, name) for found in _programs(file, set())]
        if programs:
            shown = list(dict.fromkeys(program.what for program in programs))
            more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
            raise InputError(
                f"the task '{name}' runs Python code that comes with it: {', '.join(shown[:3])}{more}",
                where=str(programs[0].file),
                fix="read that code; if you trust it, add --trust-remote-code",
            )


@contextmanager
def sandboxed_templates() -> Iterator[None]:
    """Within it, templates of tasks reach the values of a document and nothing else of Python.

    Raises:
        InputError: a template tries to.
    """
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval import utils

    before = utils.env
    inside = SandboxedEnvironment(
        loader=before.loader, undefined=before.undefined, keep_trailing_newline=before.keep_trailing_newline
    )
    inside.filters.update(before.filters)
    utils.env = inside
    try:
        yield
    except SecurityError as error:
        raise InputError(
            f"a template of a task tries to run Python code: {first_line(error)}",
            fix="read the task's templates; if you trust them, add --trust-remote-code",
        ) from error
    finally:
        utils.env = before


def _files(index: Mapping[str, Any], name: str) -> Iterator[Path]:
    """The files of a task, and of all that a group or tag of this name holds, those of lm-eval left out."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        entry = index.get(waiting.pop())
        if entry is None or entry.name in seen:
            continue
        seen.add(entry.name)
        if entry.yaml_path is not None and not _is_of_lm_eval(entry.yaml_path):
            yield entry.yaml_path
        waiting += [*entry.tags, *_named((entry.cfg or {}).get("task"))]


def _named(tasks: Any) -> Iterator[str]:
    """The names in a group's list of tasks, in which groups and tasks may stand with options of their own."""
    for item in tasks if isinstance(tasks, list) else [tasks]:
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            for key in ("task", "group"):
                yield from _named(item.get(key))


def _is_of_lm_eval(file: Path) -> bool:
    import lm_eval

    return file.expanduser().resolve().is_relative_to(Path(lm_eval.__file__).resolve().parent)


def _programs(file: Path, seen: set[Path]) -> Iterator[Program]:
    """What a file of a task, and the files that it includes, would have run."""
    file = file.expanduser().resolve()
    if file in seen or _is_of_lm_eval(file):
        return
    seen.add(file)
    try:
        content = yaml.load(file.read_bytes(), Loader=_Reader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"the task file '{file}' cannot be read: {first_line(error)}", where=str(file)) from error
    yield from (Program(file, what) for what in _code_in(content))
    includes = content.get("include", []) if isinstance(content, dict) else []
    for included in includes if isinstance(includes, list) else [includes]:
        yield from _programs(file.parent / str(included), seen)


@dataclass(frozen=True)
class _Tagged:
    text: str


class _Reader(yaml.SafeLoader):
    """Reads what has a tag of its own, as ``!function utils.score``, as that text."""


def _tagged(loader: yaml.Loader, suffix: str, node: yaml.Node) -> _Tagged:
    value = node.value if isinstance(node, yaml.ScalarNode) else "..."
    return _Tagged(f"{node.tag} {value}")


for _tag in ("!", "tag:"):
    _Reader.add_multi_constructor(_tag, _tagged)


def _code_in(value: Any) -> Iterator[str]:
    if isinstance(value, _Tagged):
        yield value.text
    elif isinstance(value, dict):
        yield from _foreign_metric(value)
        for key, below in value.items():
            yield from _code_in(key)
            yield from _code_in(below)
    elif isinstance(value, list):
        for item in value:
            yield from _code_in(item)


def _foreign_metric(value: Mapping[Any, Any]) -> Iterator[str]:
    """A metric that lm-eval does not know: it loads a program of this name from the hub, or from a path."""
    from lm_eval.api import metrics, registry

    assert metrics, "importing them registers them"
    name = value.get("metric")
    if isinstance(name, str) and (value.get("hf_evaluate") is True or name not in registry.metric_registry):
        yield f"metric {name}"
