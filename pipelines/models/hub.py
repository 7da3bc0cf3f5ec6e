"""Model repositories on the hub: fetched into the local cache, and read from it where the hub cannot be reached."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from data_registry.hub import network
from data_registry.hub.errors import Wanted, explain

logger = logging.getLogger(__name__)

SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py")


def fetch(reference: str, revision: str | None, patterns: Sequence[str], *, hint: str = "") -> Path:
    """The cached folder of a repository with the files that match; missing files are fetched first.

    Args:
        reference: the id of the repository.
        revision: a branch, tag or commit; None means the main branch.
        patterns: file name patterns for the files that are needed; the folder may hold other files too.
        hint: text added to the error where the id may have been meant as a path, such as a similar existing path.

    Returns:
        The folder; its name is the commit. Without a connection it is the folder that the cache has, which may lack
        files.

    Raises:
        InputError: there is no such repository or revision, access to it is denied, or neither hub nor cache has it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    network.settle()
    try:
        return Path(snapshot_download(reference, revision=revision, allow_patterns=list(patterns)))
    except (HFValidationError, OSError) as error:  # the hub's refusals are OSErrors
        raise explain(error, Wanted(reference, "model", revision, hint)) from error
