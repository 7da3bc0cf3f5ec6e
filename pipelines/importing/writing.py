"""A model as a directory that every command, transformers and vLLM can load."""

from __future__ import annotations

from pathlib import Path

from data_registry.core.errors import InputError, first_line, is_out_of_memory
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.progress import Progress
from pipelines.importing import fidelity
from pipelines.importing.gguf import Contents, read_gguf
from pipelines.models.loading import quiet

_NAMES = ("general.name", "general.license", "general.architecture")


def write_model(writer: ArtifactWriter, path: Path, weights: str) -> list[str]:
    """Fill the artifact of an imported model, and check what was written.

    Args:
        writer: the writer of the artifact; its summary is filled.
        path: the GGUF file.
        weights: the type of the stored weights.

    Returns:
        remarks for the user.

    Raises:
        InputError: the file cannot be read, or what was stored is not what was read.
    """
    with Progress("importing", total=3, unit="steps") as progress:
        imported = read_gguf(path, weights)
        fidelity.check_tokenizer(imported)
        progress.advance()
        try:
            with quiet():
                imported.model.save_pretrained(writer.path)
                imported.tokenizer.save_pretrained(writer.path)
        except (ValueError, RuntimeError, TypeError) as error:
            if is_out_of_memory(error):
                raise
            raise InputError(f"transformers cannot store this model: {first_line(error)}", where=str(path)) from error
        progress.advance()
        found = fidelity.compare(imported, writer.path)
        progress.advance()
    remarks = list(imported.remarks)
    if found.answers < found.prompts:
        remarks.append(
            f"{found.prompts - found.answers} of {found.prompts} greedy answers changed with the weights' type"
        )
    remarks += [f"the tokenizer does not give back the text that begins with {text!r}" for text in found.spoiled]
    writer.summary = _summary(imported.contents, imported.model.num_parameters()) | found.summary()
    if remarks:
        writer.summary["remarks"] = remarks
    return remarks


def _summary(contents: Contents, parameters: int) -> dict[str, object]:
    named = {name.partition(".")[2]: contents.metadata[name] for name in _NAMES if name in contents.metadata}
    stored = ", ".join(f"{count} {kind}" for kind, count in sorted(contents.types.items()))
    return {**named, "parameters": parameters, "tensors_of_the_file": stored}
