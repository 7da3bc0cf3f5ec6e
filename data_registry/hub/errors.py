"""What the hub refuses and what is not in its cache, as one error that says what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data_registry.core.errors import InputError, first_line

Kind = Literal["model", "data set"]


class NotFetchedError(InputError):
    """Neither the hub can be reached nor does its cache have the repository (exit code 2)."""


@dataclass(frozen=True)
class Wanted:
    """What was looked for on the hub.

    Attributes:
        name: the repository's id.
        kind: whether a model or a data set is wanted.
        revision: branch, tag or commit; None for the main branch.
        hint: what else the name may have meant, such as a similar path that exists.
    """

    name: str
    kind: Kind
    revision: str | None = None
    hint: str = ""

    @property
    def page(self) -> str:
        """Where people accept its terms; of the endpoint in use, which may be a mirror."""
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{'datasets/' if self.kind == 'data set' else ''}{self.name}"

    @property
    def command(self) -> str:
        """The shell command that fetches the repository beforehand."""
        at = f" --revision {self.revision}" if self.revision else ""
        return f"hf download{' --repo-type dataset' if self.kind == 'data set' else ''} {self.name}{at}"


def explain(error: BaseException, wanted: Wanted) -> InputError:
    """Turn what a library raised while it looked for a repository into an error for the user.

    Args:
        error: what huggingface_hub raised, or datasets, which keeps some of its reasons in words only.
        wanted: the repository that was looked for.
    """
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if is_gated(error):
        return _gated(error, wanted)
    if isinstance(error, LocalEntryNotFoundError) or _is_unreachable(error):
        return _not_fetched(wanted)
    if isinstance(error, RepositoryNotFoundError):
        return InputError(
            f"'{wanted.name}' is neither a directory here nor a {wanted.kind} on the hub{wanted.hint}",
            fix=f"check the spelling; for a private {wanted.kind}:  hf auth login",
        )
    if isinstance(error, RevisionNotFoundError):
        return InputError(f"'{wanted.name}' on the hub has no revision '{wanted.revision}'")
    if isinstance(error, HFValidationError):
        return InputError(f"'{wanted.name}' is no directory here{wanted.hint}, and cannot be an id on the hub")
    is_refused = isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403)
    return InputError(
        f"'{wanted.name}' cannot be fetched from the hub: {first_line(error)}",
        fix="log in (hf auth login), or correct HF_TOKEN" if is_refused else None,
    )


def is_gated(error: BaseException) -> bool:
    """Whether a repository was refused since its terms were not accepted."""
    from huggingface_hub.errors import GatedRepoError

    # datasets puts errors of its own in the place of the hub's, whose reason is then left in their words alone.
    words = str(error)
    return isinstance(error, GatedRepoError) or "is a gated dataset" in words or "Cannot access gated repo" in words


def _is_unreachable(error: BaseException) -> bool:
    # datasets gives a plain ConnectionError where neither hub nor cache has the data.
    return isinstance(error, ConnectionError)


def _gated(error: BaseException, wanted: Wanted) -> InputError:
    is_known = "403" in str(error) or "ask for access" in str(error)
    who = "the account of this token has not been given access" if is_known else "nobody is logged in"
    log_in = "" if is_known else ", then log in:  hf auth login  (or set HF_TOKEN)"
    return InputError(
        f"the {wanted.kind} '{wanted.name}' needs its terms accepted on the hub, and {who}",
        fix=f"accept them at {wanted.page}{log_in}; or name a copy on this machine",
    )


def _not_fetched(wanted: Wanted) -> NotFetchedError:
    revision = f"revision '{wanted.revision}' of it" if wanted.revision else "a copy"
    return NotFetchedError(
        f"'{wanted.name}' is no directory here{wanted.hint}, and neither the hub can be reached nor has its cache "
        f"{revision}",
        fix=f"correct the path; or fetch it where there is a network:  {wanted.command}",
    )
