"""Imports go one way, and what only some modules may know stays there."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.configs.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ogpsa_cli", "pipelines", "data_registry")
HEAVY = {"torch", "transformers", "datasets", "deepspeed", "trl", "peft", "accelerate"}

# Inside pipelines: who may import whom. A package imports itself and what stands below it.
BELOW = {
    "configs": set(),
    "shared": {"configs"},
    "gradients": set(),
    "basis": {"configs", "shared", "gradients"},
    "training": {"configs", "shared", "gradients", "basis"},
    "evaluation": {"configs", "shared", "gradients", "basis"},
    "merging": {"configs", "shared", "gradients", "basis"},
    "reporting": {"configs", "shared", "evaluation"},
    "recipe": {"configs", "shared", "gradients", "basis", "training", "evaluation", "merging", "reporting"},
}


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


# The modules that do the commands' work.
RECIPES = {f"pipelines.commands.{command.module}" for command in COMMANDS}


def imports(name: str, *, top_level: bool = False) -> Iterator[tuple[str, int]]:
    """Every module that a module imports, with the line; relative imports resolved."""
    path = MODULES[name]
    tree = ast.parse(path.read_text(), str(path))
    nodes = _top_level_nodes(tree) if top_level else ast.walk(tree)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *filter(None, [node.module])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield (full if full in MODULES else base), node.lineno


def _top_level_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run on import: not inside functions, nor under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _top_level_nodes(node)


def stratum(name: str) -> str:
    """Where a module of pipelines stands."""
    parts = name.split(".")
    if name in RECIPES:
        return "recipe"
    return parts[1] if len(parts) > 1 and parts[1] in BELOW else "shared"


def test_every_module_can_be_parsed_and_is_known() -> None:
    assert len(MODULES) > 30
    assert {
        "pipelines.commands.prepare_data",
        "pipelines.commands.build_basis",
        "pipelines.training.sft",
        "pipelines.commands.evaluate",
    } <= RECIPES


@pytest.mark.parametrize("name", MODULES)
def test_packages_import_only_downwards(name: str) -> None:
    rank = {package: index for index, package in enumerate(PACKAGES)}
    own = name.split(".")[0]
    upward = [
        f"{name}:{line} imports {imported}"
        for imported, line in imports(name)
        if imported.split(".")[0] in rank and rank[imported.split(".")[0]] < rank[own]
    ]
    assert not upward


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("pipelines.")])
def test_inside_pipelines_imports_go_down(name: str) -> None:
    own = stratum(name)
    allowed = BELOW[own] | {own}
    upward = [
        f"{name}:{line} ({own}) imports {imported} ({stratum(imported)})"
        for imported, line in imports(name)
        if imported.startswith("pipelines.") and stratum(imported) not in allowed
    ]
    assert not upward


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("pipelines.configs")])
def test_configs_stand_on_the_core_alone(name: str) -> None:
    foreign = [
        f"{name}:{line} imports {imported}"
        for imported, line in imports(name)
        if imported.split(".")[0] in PACKAGES and not imported.startswith(("data_registry.core", "pipelines.configs"))
    ]
    assert not foreign


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("data_registry.core")])
def test_the_core_imports_nothing_above_it(name: str) -> None:
    foreign = [
        f"{name}:{line} imports {imported}"
        for imported, line in imports(name)
        if imported.split(".")[0] in PACKAGES and not imported.startswith("data_registry.core")
    ]
    assert not foreign


@pytest.mark.parametrize(
    "name",
    [name for name in MODULES if name.startswith(("ogpsa_cli", "data_registry", "pipelines.configs"))],
)
def test_heavy_libraries_are_imported_where_they_are_used(name: str) -> None:
    early = [
        f"{name}:{line} imports {imported} on import"
        for imported, line in imports(name, top_level=True)
        if imported.split(".")[0] in HEAVY
    ]
    assert not early


def test_one_module_alone_knows_the_zero_stages() -> None:
    knowing = {
        path.relative_to(ROOT).as_posix()
        for path in MODULES.values()
        if any(word in path.read_text() for word in ("deepspeed.runtime", "_hp_mapping"))
    }
    assert knowing <= {"pipelines/engine/shards/access.py"}


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name.startswith("ogpsa_cli.commands.")))
def test_every_command_module_keeps_the_contract(name: str) -> None:
    module = importlib.import_module(name)
    assert callable(module.execute)
    (command,) = (command for command in COMMANDS if command.module == name.rpartition(".")[2])
    assert command.config_class().__doc__
    assert command.config_class().examples


def test_every_command_of_the_list_has_a_module() -> None:
    for folder in ("ogpsa_cli.commands.", "pipelines.commands."):
        assert {folder + command.module for command in COMMANDS} == {
            name for name in MODULES if name.startswith(folder)
        }
