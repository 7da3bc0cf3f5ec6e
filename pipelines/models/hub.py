"""Model repositories on the hub: fetched into the local cache, and read from it where the hub cannot be reached."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from data_registry.hub import network
from data_registry.hub.errors import Wanted, explain

logger = logging.getLogger(__name__)

SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py")
WEIGHT_FILES = ("model*.safetensors", "adapter_model.safetensors")


def fetch(reference: str, revision: str | None, patterns: Sequence[str], *, hint: str = "") -> Path:
    """The folder of a repository in the cache, with the files that match, fetched where they are not there.

    Args:
        reference: the repository's id.
        revision: branch, tag or commit; None for the main branch.
        patterns: file name patterns of what is needed; other files may be there too.
        hint: added where the id may have been meant as a path, such as a similar one that exists.

    Returns:
        The folder; its name is the commit. Without a connection what the cache has, which may lack files.

    Raises:
        InputError: there is no such repository or revision, it may not be read, or neither hub nor cache has it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    network.settle()
    try:
        return Path(snapshot_download(reference, revision=revision, allow_patterns=list(patterns)))
    except (HFValidationError, OSError) as error:  # the hub's refusals are OSErrors
        raise explain(error, Wanted(reference, "model", revision, hint)) from error
