"""The work of ``ogpsa import-model``: a GGUF file as a model directory."""

from __future__ import annotations

import logging

from data_registry.core.manifest import InputRecord, hash_file
from pipelines.configs.import_model import ImportModelConfig
from pipelines.core.making import Made, Wanted, make
from pipelines.importing.gguf import check_installed, read_contents
from pipelines.importing.sources import gguf_file
from pipelines.importing.writing import write_model

logger = logging.getLogger(__name__)
KIND = "model"


def run(config: ImportModelConfig) -> Made:
    """Import the model, or find it imported.

    Raises:
        OgpsaError: the file cannot be found or read, or what was stored is not what was read.
    """
    check_installed()
    with gguf_file(config.source) as path:
        record = InputRecord(role="model", path=config.source, kind="gguf", fingerprint=hash_file(path))
        wanted = Wanted(config.out, KIND, config, [record], overwrite=config.overwrite)
        return make(wanted, lambda writer: _say(write_model(writer, path, config.dtype)))


def _say(remarks: list[str]) -> None:
    for remark in remarks:
        logger.warning("%s", remark)


def plan(config: ImportModelConfig) -> list[tuple[str, str]]:
    """What :func:`run` would do, for ``--dry-run``.

    Raises:
        OgpsaError: as for :func:`run`, as far as it shows without the weights.
    """
    check_installed()
    with gguf_file(config.source) as path:
        contents = read_contents(path)
    stored = ", ".join(f"{count} {kind}" for kind, count in sorted(contents.types.items()))
    return [
        ("file", f"{path.name}, {contents.metadata.get('general.architecture', 'unknown')}, {stored}"),
        ("vocabulary", f"{len(contents.tokens)} tokens, {contents.metadata.get('tokenizer.ggml.pre', 'no')} splitting"),
        ("weights", config.dtype),
        ("output", str(config.out)),
    ]
