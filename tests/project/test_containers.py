"""The Dockerfile and the Apptainer definition: both make the same, from files that exist and versions that are pinned.

They are read, not built. ``make lint`` has hadolint read the Dockerfile, too.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.structure.code import ROOT

DOCKERFILE = ROOT / "containers" / "Dockerfile"
DEFINITION = ROOT / "containers" / "ogpsa.def"
INSTRUCTIONS = {"FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR", "USER", "ENTRYPOINT", "CMD"}
SECTIONS = {"arguments", "files", "post", "environment", "runscript", "test", "labels", "help"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, each with what follows it on one line."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    pairs = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name, " ".join(rest.split())) for name, _, rest in pairs]


def sections() -> dict[str, list[str]]:
    """The sections of the Apptainer definition by name, the header's as an empty name; without comments."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in DEFINITION.read_text().splitlines():
        if line.startswith("%"):
            name = line[1:].strip()
            assert name not in found
            found[name] = []
        elif line.strip() and not line.strip().startswith("#"):
            found[name].append(line.strip())
    return found


def of(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def commands_of_the_image() -> list[str]:
    """The commands of all RUN instructions, one by one, with programs by name."""
    return [command.strip() for line in of("RUN") for command in line.split("&&")]


def installs(commands: list[str]) -> list[str]:
    """What pip is asked for, with build arguments as the Dockerfile writes them."""
    plain = [re.sub(r"\{\{ (\w+) \}\}", r"${\1}", command) for command in commands]
    return [command.partition("pip install ")[2] for command in plain if "pip install " in command]


def test_instructions_and_sections_are_known_ones() -> None:
    assert {name for name, _ in instructions()} <= INSTRUCTIONS
    assert set(sections()) - {""} <= SECTIONS
    assert [line.partition(":")[0] for line in sections()[""]] == ["Bootstrap", "From"]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    copied = {source for line in of("COPY") for source in line.split()[:-1]}
    assert copied == {line.split()[0] for line in sections()["files"]}
    assert all((ROOT / source).exists() for source in copied)
    ignored = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert copied == {line[1:] for line in ignored if line.startswith("!")}
    # What the build needs: the packages, and what pyproject.toml names.
    assert {"constraints.txt", "pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]} <= copied
    assert {"ogpsa_cli", "pipelines", "data_registry"} <= copied


def test_every_version_is_that_of_the_constraints() -> None:
    for commands in (commands_of_the_image(), sections()["post"]):
        asked = installs(commands)
        assert len(asked) >= 3
        for words in asked:
            assert "-c constraints.txt" in words or "--no-deps" in words
            assert "==" not in words
            for extras in re.findall(r"\.\[(.*?)\]", words):
                assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_both_make_the_same() -> None:
    image, definition = installs(commands_of_the_image()), installs(sections()["post"])
    # The image installs the code in a layer of its own.
    assert [words for words in image if "--no-deps" not in words] == definition
    arguments = dict(line.split("=", 1) for line in of("ARG"))
    assert dict(line.split("=", 1) for line in sections()["arguments"]) == arguments
    (base,) = of("FROM")
    assert sections()[""][1].removeprefix("From: ") == re.sub(r"\$\{(\w+)\}", r"{{ \1 }}", base)
    packages = [command for command in commands_of_the_image() if command.startswith("dnf install")]
    assert packages == [line for line in sections()["post"] if line.startswith("dnf install")]


def test_the_python_is_the_one_that_is_tested() -> None:
    python = re.search(r"PYTHON \?= (python[\d.]+)", (ROOT / "Makefile").read_text()).group(1)
    for text in (DOCKERFILE.read_text(), DEFINITION.read_text()):
        assert set(re.findall(r"python3\.\d+", text)) == {python}


def test_torch_and_the_toolkit_are_of_one_cuda() -> None:
    for file in (DOCKERFILE, DEFINITION):
        pairs = re.findall(r"CUDA=([\d.]+).*?whl/cu(\d+)", file.read_text(), re.DOTALL)
        assert len(pairs) == 2
        for toolkit, torch in pairs:
            assert "".join(toolkit.split(".")[:2]) == torch


def test_the_image_runs_ogpsa_as_a_user_and_builds_no_operators() -> None:
    assert of("USER") == ["1000"]
    assert of("ENTRYPOINT") == ['["ogpsa"]']
    assert any("DS_BUILD_OPS=0" in line for line in of("ENV"))
    assert any("DS_BUILD_OPS=0" in line for line in sections()["post"])
    assert 'exec ogpsa "$@"' in sections()["runscript"]


@pytest.mark.parametrize("section", ["post", "environment", "runscript", "test"])
def test_shell_of_the_definition_can_be_read(section: str, tmp_path: Path) -> None:
    script = tmp_path / "section.sh"
    script.write_text("\n".join(sections()[section]) + "\n")
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).returncode == 0
