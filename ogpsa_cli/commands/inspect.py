"""``ogpsa inspect``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from data_registry.core.errors import ArtifactError

if TYPE_CHECKING:
    from rich.tree import Tree

    from data_registry.core.manifest import Manifest
    from pipelines.configs.tools import InspectConfig
    from pipelines.inspecting.artifacts import Inspection
    from pipelines.inspecting.lineage import Ancestor
    from pipelines.models.summary import ModelSummary

_SHOWN_ANSWERS = 8
_STYLES = {"intact": "green", "moved": "yellow", "changed": "red", "damaged": "red", "gone": "red"}


def execute(config: InspectConfig) -> int:
    """Show the artifact; exit code 3 when it does not verify."""
    from ogpsa_cli import console
    from pipelines.commands import inspect
    from pipelines.inspecting import artifacts

    found = inspect.run(config)
    if config.as_json:
        console.print_json(artifacts.as_json(found))
    else:
        _show(found)
    if found.is_intact:
        return 0
    again = f"make it again:  {console.command_text(found.manifest.command)} --overwrite" if found.manifest else None
    more = f" and {len(found.problems) - 1} more problems" if len(found.problems) > 1 else ""
    console.show_error(f"'{found.path}' does not verify: {found.problems[0]}{more}", where=str(found.path), fix=again)
    return ArtifactError.exit_code


def _show(found: Inspection) -> None:
    from rich.table import Table
    from rich.text import Text

    from ogpsa_cli import console

    console.show(Text.assemble(console.text(f"{found.kind} ", "bold cyan"), console.text(found.path, "bold")))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2), pad_edge=False)
    for name, value in [*_facts(found), *_model_facts(found.model), ("verifies", _verdict(found))]:
        style = ("green" if found.is_intact else "red") if name == "verifies" else ""
        table.add_row(Text(name, style="dim"), console.text(value, style))
    console.show(table)
    if found.manifest and found.manifest.summary:
        console.show(Text("summary", style="bold yellow"))
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 2), pad_edge=False)
        for name, value in console.summary_rows(found.manifest.summary):
            table.add_row(console.text(name, "dim"), console.text(value))
        console.show(table)
    _show_content(found)
    if found.inputs:
        console.show(Text("made from", style="bold yellow"))
        console.show(_tree(found))


def _show_content(found: Inspection) -> None:
    """Show what an artifact holds where its figures alone do not say it."""
    from pipelines.token_weights.description import KIND, read_description

    if found.kind == KIND and found.is_intact:
        from ogpsa_cli.commands.score_tokens import show_answers

        show_answers(read_description(found.path), _SHOWN_ANSWERS)


def _verdict(found: Inspection) -> str:
    if found.problems:
        return "no: " + "; ".join(found.problems[:3]) + (" ..." if len(found.problems) > 3 else "")
    if found.manifest is None:
        return "no manifest to compare with; the weight files are whole"
    return "yes, all contents" if found.compared else "yes, sizes only"


def _facts(found: Inspection) -> Iterator[tuple[str, str]]:
    from pipelines.inspecting.machine import size_text

    manifest = found.manifest
    if manifest is None:
        yield "size", size_text(found.size_bytes)
        return
    from ogpsa_cli import console

    yield "command", console.command_text(manifest.command)
    yield "made", f"{manifest.finished.replace('T', ' ')}, in {manifest.duration_s:.1f} s"
    yield "with", _environment(manifest)
    yield "size", f"{size_text(found.size_bytes)} in {len(manifest.files)} files"
    yield "fingerprint", manifest.fingerprint[:16]
    remains = [each for each in found.leftovers if each.kind != "in use"]
    if remains:
        from pipelines.inspecting.remains import in_words

        yield "left behind", f"{in_words(remains)}:  {console.command_text(['ogpsa', 'clean', found.path])}"


def _environment(manifest: Manifest) -> str:
    environment = manifest.environment
    packages = environment.get("packages") or {}
    named = [f"{name} {packages[name]}" for name in ("torch", "transformers", "trl", "deepspeed") if name in packages]
    devices = environment.get("devices") or []
    where = f"{len(devices)} x {devices[0]}" if devices else f"{environment.get('cpus', '?')} CPUs"
    commit = f" ({environment['commit']})" if environment.get("commit") else ""
    processes = f", {environment['world_size']} processes" if environment.get("world_size", 1) != 1 else ""
    return f"ogpsa {manifest.tool_version}{commit}, {', '.join(named)}; {where}{processes}"


def _model_facts(model: ModelSummary | None) -> Iterator[tuple[str, str]]:
    if model is None:
        return
    formats = ", ".join(sorted(model.dtypes))
    shape = [
        f"{value} {name}"
        for name, value in (("layers", model.num_layers), ("wide", model.hidden_size), ("words", model.vocab_size))
        if value is not None
    ]
    yield "model", ", ".join([model.architecture, *shape])
    yield "parameters", f"{model.num_parameters:,} ({formats})"
    if model.adapts:
        yield "adapts", model.adapts
    yield (
        "tokenizer",
        ("yes" if model.has_tokenizer else "none")
        + (", with chat template" if model.has_chat_template else ", without chat template"),
    )


def _tree(found: Inspection) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    from ogpsa_cli import console

    root = Text.assemble(console.text(f"{found.kind} ", "cyan"), console.text(found.path))
    tree = Tree(root, guide_style="dim")
    _grow(tree, found.inputs)
    return tree


def _grow(tree: Tree, inputs: Sequence[Ancestor]) -> None:
    from rich.text import Text

    from ogpsa_cli import console

    for ancestor in inputs:
        note = f", {ancestor.note}" if ancestor.note else ""
        line = Text.assemble(
            console.text(f"{ancestor.role}: ", "dim"),
            console.text(f"{ancestor.kind} ", "cyan"),
            console.text(ancestor.path),
            console.text(f"  [{ancestor.state}{note}]", _STYLES.get(ancestor.state, "dim")),
        )
        _grow(tree.add(line), ancestor.inputs)
