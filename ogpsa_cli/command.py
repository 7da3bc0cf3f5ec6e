"""Builds a command from its configuration class: flags, help, ``--config``, ``--set``, ``--json-schema``, launch."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer
import typer.core
import typer.main

from ogpsa_cli.flags import Flag
from ogpsa_cli.pages import Page, page_of
from pipelines.core import job

if TYPE_CHECKING:
    from pipelines.configs.commands import Command

_PANEL = "Configuration"
_COMMON = (
    Flag("config_file", ("--config", "-c"), "value", "FILE",
         "YAML file with any of these options; flags take precedence over it.", "", _PANEL),
    Flag("assignments", ("--set",), "list", "KEY=VALUE",
         "Set any option, also nested ones (a.b=1); takes precedence over everything. Repeatable.", "", _PANEL),
    Flag("json_schema", ("--json-schema",), "switch", "", "Print the JSON schema of the options and stop.", "", _PANEL),
    Flag("verbose", ("--verbose",), "switch", "", "Log details, and show tracebacks.", "", _PANEL),
)  # fmt: skip
_HELP = Flag("help", ("--help", "-h"), "switch", "", "Show the common options.", "", _PANEL)
_HELP_ALL = Flag("help_all", ("--help-all",), "switch", "", "Show all options.", "", _PANEL)
# Of the options that all commands share, those that the short help shows too.
_COMMON_SHOWN = ("config_file",)


class CommandModule(Protocol):
    """What a module of ``ogpsa_cli.commands`` defines."""

    def execute(self, config: Any) -> int:
        """Do the work and return the exit code."""
        ...


def build(entry: Command, arguments: Sequence[str], *, completing: bool = False) -> Any:
    """The command object for an entry of the table; this imports the options of the command but not its work.

    Args:
        entry: the command's entry in the table of commands.
        arguments: what follows ``ogpsa`` on the command line, for the manifest and for further processes.
        completing: whether a shell asks for completions: options then know what their values can be.
    """
    page = page_of(entry)
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(
        entry.name,
        cls=_command_class(page, everything=_HELP_ALL.names[0] in arguments),
        help=entry.summary,
        context_settings={"help_option_names": [*_HELP.names, *_HELP_ALL.names]},
    )(_callback(entry, page.flags, list(arguments), completing=completing))
    return typer.main.get_command(app)


def in_our_spelling(entry: Command, words: Sequence[str]) -> list[str]:
    """The words after the command's name in our spelling; see :mod:`ogpsa_cli.words`.

    Raises:
        ConfigError: an option is given twice or not known here; the error names all of them.
    """
    from ogpsa_cli import words as spelling

    return spelling.in_our_spelling(words, [*page_of(entry).flags, *_COMMON, _HELP, _HELP_ALL], entry.config_class())


def _command_class(page: Page, *, everything: bool) -> type[typer.core.TyperCommand]:
    class Command(typer.core.TyperCommand):
        def format_help(self, ctx: Any, formatter: Any) -> None:
            from ogpsa_cli import help as help_page

            shared = [*_COMMON, _HELP, _HELP_ALL]
            if everything:
                help_page.show_command(str(self.name), page.description, [*page.flags, *shared], page.examples)
                return
            shown = [flag for flag in _COMMON if flag.field in _COMMON_SHOWN]
            help_page.show_common(
                str(self.name),
                page.description,
                [*page.common(), *shown],
                page.examples,
                num_more=len(page.flags) + len(_COMMON) - len(page.common()) - len(shown),
            )

        def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
            from ogpsa_cli import completion

            return completion.with_short_help(super().shell_complete(ctx, incomplete))

    return Command


def _callback(entry: Command, flags: Sequence[Flag], arguments: list[str], *, completing: bool) -> Any:
    """A function with one optional keyword per flag (None: it was not given), which returns the function to run."""

    def callback(**given: Any) -> Callable[[], int]:
        common = {flag.field: given.pop(flag.field) for flag in _COMMON}
        # It is not run here, because Typer would handle interrupts and broken pipes in its own way.
        return partial(_run, entry, flags, given, arguments, **common)

    flags = [flag for flag in flags if flag.kind != "group"]
    annotations = {flag.field: _annotation(flag, _completer(entry, flag, completing)) for flag in [*flags, *_COMMON]}
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in annotations.items()
    ]
    callback.__annotations__ = dict(annotations)
    callback.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return callback


def _completer(entry: Command, flag: Flag, completing: bool) -> Any:
    from ogpsa_cli import completion

    return completion.completer(entry.name, flag.field, flag.choices or ()) if completing else None


def _annotation(flag: Flag, completer: Any) -> Any:
    # Texts are not converted here, because the configuration checks them and shows all problems together.
    if flag.positional:
        several: Any = list[str] | None if flag.kind == "list" else str | None
        return Annotated[several, typer.Argument(metavar=flag.names[0], help=flag.help, autocompletion=completer)]
    if flag.kind == "switch":
        # The switches that all commands share have no ``--no-`` form.
        name = flag.names[0]
        spelled = name if flag in _COMMON else f"{name}/--no-{name.removeprefix('--')}"
        return Annotated[bool | None, typer.Option(spelled, *flag.names[1:], help=flag.help)]
    kind: Any = list[str] | None if flag.kind == "list" else str | None
    return Annotated[kind, typer.Option(*flag.names, metavar=flag.metavar, help=flag.help, autocompletion=completer)]


def given_options(flags: Sequence[Flag], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given on the command line, by field name; choices are converted to their own type."""
    by_field = {flag.field: flag for flag in flags}
    return {name: by_field[name].value_of(value) for name, value in given.items() if value is not None and value != []}


def _check_text(arguments: Sequence[str]) -> None:
    """Refuse at once what no manifest could record at the end.

    Raises:
        ConfigError: an argument, or the name of the working directory, is not UTF-8 text.
    """
    from data_registry.core.errors import ConfigError
    from data_registry.core.visible import visible

    try:
        here = os.getcwd()
    except OSError:
        here = ""
    for text in (*arguments, here):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"'{visible(text)}' is not UTF-8, and no manifest could record it",
                fix="give the file or directory another name, or name a link to it",
            ) from error


def _run(
    entry: Command,
    flags: Sequence[Flag],
    given: Mapping[str, Any],
    arguments: list[str],
    *,
    config_file: str | None,
    assignments: Sequence[str] | None,
    json_schema: bool | None,
    verbose: bool | None,
) -> int:
    from ogpsa_cli import console
    from ogpsa_cli.launch import processes, slurm
    from pipelines.core import artifact, collecting, log
    from pipelines.core.config import resolve

    collecting.begin_seldom()
    _check_text(arguments)
    # Other libraries show no progress bars; ours say what is done. Libraries look at these when they are imported.
    for variable in ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(variable, "1")
    module: CommandModule = importlib.import_module(f"ogpsa_cli.commands.{entry.module}")
    config_class = entry.config_class()
    if json_schema:
        console.print_json(config_class.model_json_schema())
        return 0
    file = Path(config_file).expanduser() if config_file is not None else None
    # This is read before the environment is settled: srun's tasks agree on a port unless the user has chosen one.
    chooses_port = slurm.is_task_of_several(os.environ) and "MASTER_PORT" not in os.environ
    processes.settle_environment()
    config = resolve(config_class, file=file, flags=given_options(flags, given), sets=assignments or [])
    options = dict(config)
    if options.get("dry_run"):
        if job.rank() == 0:
            with console.results_apart():
                # Most commands show their options and a plan; those that run several commands show more.
                show = getattr(module, "dry_run", None)
                if show is not None:
                    return int(show(config))
                console.print_plan(config, f"pipelines.commands.{entry.module}")
        return 0
    if "num_procs" not in options and job.rank() != 0:
        # This command runs in one process only; under torchrun or srun the other processes have nothing to do.
        return 0
    if "num_procs" in options and not processes.is_distributed():
        num_procs = options["num_procs"] or processes.num_devices()
        if num_procs > 1:
            return processes.start(num_procs, arguments)
    if "num_procs" in options and chooses_port:
        os.environ["MASTER_PORT"] = slurm.meet(os.environ)
    artifact.record_command(arguments)
    log.configure(bool(verbose), fit=console.fit_to_terminal)
    with console.results_apart():
        return module.execute(config)
