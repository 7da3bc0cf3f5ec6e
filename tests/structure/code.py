"""The modules of the project as they lie on disk, and what each of them imports. Read, never run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ogpsa_cli", "pipelines", "data_registry", "benchmarks")


@dataclass(frozen=True)
class Import:
    """One imported module, in dotted form, with its line; ``early`` where it is imported when the file is."""

    module: str
    line: int
    early: bool


@dataclass(frozen=True)
class Module:
    """A file of the project: its dotted name, and its path from the root with slashes."""

    name: str
    file: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.text, self.file)

    @property
    def folder(self) -> str:
        """The folder that the file lies in, from the root."""
        return self.file.rpartition("/")[0]

    def imports(self) -> Iterator[Import]:
        """Everything that is imported anywhere in the file; ``from a import b`` is ``a.b``, relative ones resolved."""
        early = {id(node) for node in _early_nodes(self.tree)}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(alias.name, node.lineno, id(node) in early)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                for alias in node.names:
                    yield Import(f"{base}.{alias.name}", node.lineno, id(node) in early)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = self.name if self.file.endswith("/__init__.py") else self.name.rpartition(".")[0]
        parents = package.split(".")[: len(package.split(".")) - node.level + 1]
        return ".".join([*parents, *filter(None, [node.module])])

    def functions(self) -> Iterator[tuple[str, int]]:
        """Every function and method, also nested ones, with its number of lines, decorators left out."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield node.name, node.end_lineno - node.lineno + 1


def _early_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run on import: neither inside functions nor under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _early_nodes(node)


def read_modules(root: Path = ROOT, packages: tuple[str, ...] = PACKAGES) -> dict[str, Module]:
    """All modules of the packages under a root, by dotted name."""
    found = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = Module(name, path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
    return found


def project_imports(module: Module, modules: Mapping[str, Module]) -> Iterator[tuple[Module, Import]]:
    """The project's own files that a file imports. Of ``from a import b``, ``a.b`` where that is a file, else ``a``."""
    for imported in module.imports():
        name = imported.module
        while name and name not in modules:
            name = name.rpartition(".")[0]
        if name and name != module.name:
            yield modules[name], imported


def circle(arrows: Mapping[str, set[str]]) -> list[str]:
    """One circle of a graph, its first member again at the end; empty where there is none."""
    finished: set[str] = set()
    path: list[str] = []

    def visit(node: str) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in finished:
            return []
        path.append(node)
        for below in sorted(arrows.get(node, ())):
            if found := visit(below):
                return found
        finished.add(path.pop())
        return []

    return next((found for node in sorted(arrows) if (found := visit(node))), [])
