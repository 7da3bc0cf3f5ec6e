"""Putting a finished model on the hub: what can go wrong is tried before training, and a failure never loses a run."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any

from data_registry.core.errors import ConfigError, InputError, first_line
from data_registry.hub import network

logger = logging.getLogger(__name__)

_LOG_IN = "log in:  hf auth login  (or set HF_TOKEN to a token that may write)"


def check_can_push(name: str) -> str:
    """Find out who is logged in, and whether that account may write to a repository; takes seconds.

    Args:
        name: the repository, as ``NAME/REPO`` or, in the account's own space, ``REPO``.

    Returns:
        The full name of the repository.

    Raises:
        ConfigError: nobody is logged in, the token is refused or may only read, or the space is another's.
        InputError: the hub cannot be reached.
    """
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError

    if get_token() is None:
        raise ConfigError(f"--push-to-hub {name}: nobody is logged in to the hub", fix=_LOG_IN)
    network.settle()
    if constants.HF_HUB_OFFLINE:
        raise InputError(
            f"--push-to-hub {name}: the hub ({constants.ENDPOINT}) cannot be reached, or HF_HUB_OFFLINE is set",
            fix="leave --push-to-hub out here; the same command with it pushes later, and trains nothing",
        )
    try:
        account: dict[str, Any] = HfApi().whoami()
    except HfHubHTTPError as error:
        raise ConfigError(
            f"--push-to-hub {name}: the hub refuses the token: {first_line(error)}", fix=_LOG_IN
        ) from error
    except Exception as error:
        raise InputError(f"--push-to-hub {name}: the hub does not answer: {first_line(error)}") from error
    if _role(account) == "read":
        raise ConfigError(f"--push-to-hub {name}: the token of '{account['name']}' may only read", fix=_LOG_IN)
    space, slash, _ = name.partition("/")
    if not slash:
        return f"{account['name']}/{name}"
    spaces = [account["name"], *(each.get("name") for each in account.get("orgs") or ())]
    if space not in spaces:
        logger.warning(
            "'%s' is no member of '%s': pushing to %s works only if that repository takes others' commits",
            account["name"], space, name,
        )  # fmt: skip
    return name


def push_model(name: str, run: Path, *, private: bool) -> str:
    """Put the model of a finished run on the hub; what is there already is not sent again.

    Args:
        name: the full name of the repository, which is made if it is not there.
        run: the directory of the run.
        private: whether a repository that is made is private.

    Returns:
        The address of the repository.

    Raises:
        InputError: the hub did not take it; the run is whole, and the message says how to push it later.
    """
    from huggingface_hub import HfApi

    folder = run / "model"
    api = HfApi()
    try:
        address = str(api.create_repo(name, private=True if private else None, exist_ok=True))
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Model trained with ogpsa")
    except Exception as error:
        raise InputError(
            f"the run is finished and whole, and its model could not be pushed to '{name}': {first_line(error)}",
            where=str(folder),
            fix=f"the same command pushes it again and trains nothing; or:  {upload_command(name, folder)}",
        ) from error
    logger.info("the model was pushed to %s", address)
    return address


def upload_command(name: str, folder: Path) -> str:
    """The shell command that pushes a folder without ogpsa."""
    return shlex.join(["hf", "upload", name, str(folder)])


def _role(account: dict[str, Any]) -> str | None:
    token = (account.get("auth") or {}).get("accessToken") or {}
    role = token.get("role")
    return str(role) if role is not None else None
