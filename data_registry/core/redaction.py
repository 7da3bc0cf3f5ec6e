"""Tokens and passwords hidden in whatever is recorded or logged: artifacts are made to be handed on.

What is hidden is known by the name it is given under (``hub_token``, ``--password``, ``api-key``), by its own form
(``hf_...``, ``ghp_...``, ``https://user:password@host``), or because an environment variable of such a name holds it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

HIDDEN: Final = "***"

_SECRETS: Final = frozenset(
    [
        "password", "passwd", "passphrase", "pwd", "secret", "secrets", "credential", "credentials", "apikey",
        "accesskey", "secretkey", "authtoken"
    ]
)  # fmt: skip
# Whose token or key it is: only these are nothing else for sure.
_OWNERS: Final = frozenset(
    [
        "access", "account", "anthropic", "api", "auth", "azure", "bearer", "bot", "client", "deploy", "dockerhub",
        "encryption", "gh", "git", "github", "gitlab", "hf", "hub", "huggingface", "jwt", "kaggle", "login", "mlflow",
        "neptune", "oauth", "openai", "personal", "private", "pypi", "refresh", "secret", "security", "service",
        "session", "signing", "slack", "ssh", "trackio", "user", "wandb", "write"
    ]
)  # fmt: skip
# Tokens of a vocabulary, and keys of rows and mappings.
_NO_SECRETS: Final = frozenset(
    [
        "additional", "answer", "assistant", "audio", "begin", "beginning", "bos", "cache", "call", "chosen", "cls",
        "column", "completion", "content", "context", "data", "dict", "dim", "end", "eos", "eot", "field", "first",
        "foreign", "group", "head", "id", "image", "input", "json", "key", "label", "last", "mask", "message",
        "messages", "metric", "next", "output", "pad", "per", "prefix", "primary", "prompt", "public", "query",
        "question", "rejected", "response", "role", "row", "sep", "sort", "source", "special", "start", "stop",
        "system", "target", "text", "think", "tool", "unk", "value", "video"
    ]
)  # fmt: skip
# Below these stand names of columns and values of rows.
_COLUMNS: Final = frozenset(("columns", "tags", "where", "layout"))

_WORD: Final = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")
_FORMS: Final = re.compile(
    r"\b(?:hf_(?:[A-Z0-9]{9,}|[A-Za-z0-9]{20,})|sk-[A-Za-z0-9_-]{16,}|gh[opsur]_[A-Za-z0-9]{16,}"
    r"|github_pat_\w{16,}|glpat-[\w-]{16,}|xox[abeoprs]-[\w-]{10,}|A[KS]IA[0-9A-Z]{16}|AIza[\w-]{30,}"
    r"|wandb_v\d_\w{16,}|pypi-[\w-]{30,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)
_BEARER: Final = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{12,}")
_IN_URL: Final = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)([^/\s?#@:'\"]*)(:[^/\s?#'\"]*)?@")
_IN_QUERY: Final = re.compile(
    r"(?i)([?&;](?:[\w.-]*(?:token|key|secret|passw\w*|credential|signature)|sig|auth|pwd)=)[^&#\s'\"]+"
)
# ``name=value`` and ``name: value``, in a shell, in YAML or in JSON. What begins with $ or < stands for something else.
_ASSIGNED: Final = re.compile(
    r"(?<![\w/.-])(?P<name>[A-Za-z_][\w.-]*)(?P<sign>[\"']?\s*[=:]\s*)(?P<value>\"[^\"]+\"|'[^']+'|(?!//)[^\s,;&{}()\[\]$<'\"*][^\s,;&{}()\[\]'\"]*)"
)
_ARGUMENT: Final = re.compile(r"(?s)(?P<name>-{0,2}[A-Za-z_][\w.-]*)=(?P<value>.+)")
_LITERALS: Final = frozenset(("true", "false", "null", "none", "yes", "no", "~", ""))
_SHORTEST: Final = 12
"""A shorter value of an environment variable, or one of letters alone, may be a part of anything."""


def is_secret_name(name: str, *, surely: bool = False) -> bool:
    """Whether a value of this name is a token or password.

    Args:
        name: the name of an option, a key, or an environment variable; of ``a.b.c`` only the last part counts.
        surely: only names that can mean nothing else: without ``key`` and ``token`` of an owner who is not known.
    """
    *groups, last_part = name.lstrip("-").split(".")
    words = [word.lower() for word in _WORD.split(last_part) if word]
    if not words or not _COLUMNS.isdisjoint(groups):
        return False
    if not _SECRETS.isdisjoint(words):
        return True
    *before, last = words
    if last in ("auth", "authorization"):
        return True
    if last not in ("token", "key"):
        return False
    if before and before[-1] in _OWNERS:
        return True
    return not surely and (not before or before[-1] not in _NO_SECRETS)


def hide(text: str, *, is_option: bool = False) -> str:
    """A text without the tokens and passwords in it; ``***`` stands for each.

    Args:
        text: any text.
        is_option: it is the value of an option, where ``key=...`` is one too; in a sentence it need not be.
    """
    for value in _of_environment():
        text = text.replace(value, HIDDEN)
    text = _hide_forms(text)
    return _ASSIGNED.sub(lambda found: _hide_assigned(found, is_option), text)


def hide_arguments(arguments: Sequence[str]) -> list[str]:
    """The words of a command line without the tokens and passwords in them."""
    shown: list[str] = []
    is_next = False
    for argument in arguments:
        whole = _ARGUMENT.fullmatch(argument)
        if is_next and not argument.startswith("--"):
            shown.append(_hidden(argument))
        elif whole and is_secret_name(whole["name"]):
            shown.append(f"{whole['name']}={_hidden(whole['value'])}")
        else:
            shown.append(hide(argument, is_option=True))
        is_next = argument.startswith("--") and "=" not in argument and is_secret_name(argument)
    return shown


def hide_values(value: Any, *, surely: bool = False) -> Any:
    """A JSON-ready value without the tokens and passwords in it.

    Args:
        value: mappings, lists, texts and numbers.
        surely: hide only values of names that can mean nothing else, and leave texts as they are: so that two values
            that become equal make equal results.
    """
    if isinstance(value, Mapping):
        return {key: _hide_value(str(key), below, surely) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [hide_values(item, surely=surely) for item in value]
    return hide(value, is_option=True) if isinstance(value, str) and not surely else value


def hidden_names(value: Any, prefix: str = "") -> Iterator[str]:
    """The dotted names under which a value holds ``***`` instead of a token or password."""
    for key, below in value.items() if isinstance(value, Mapping) else ():
        if below == HIDDEN and is_secret_name(str(key)):
            yield f"{prefix}{key}"
        yield from hidden_names(below, f"{prefix}{key}.")


def _hide_value(name: str, value: Any, surely: bool) -> Any:
    if name in _COLUMNS:
        return value
    if isinstance(value, str):
        return _hidden(value) if is_secret_name(name, surely=surely) else hide_values(value, surely=surely)
    # A number of some key is no secret; a number as a password is.
    if value is None or isinstance(value, bool) or not is_secret_name(name, surely=True):
        return hide_values(value, surely=surely)
    return HIDDEN


def _hidden(value: str) -> str:
    """``***``, unless the value says that there is none, or where it comes from."""
    return value if value.lower() in _LITERALS or value.startswith("$") else HIDDEN


def _hide_forms(text: str) -> str:
    text = _IN_URL.sub(_hide_user, text)
    text = _IN_QUERY.sub(rf"\g<1>{HIDDEN}", text)
    text = _BEARER.sub(rf"\g<1> {HIDDEN}", text)
    return _FORMS.sub(HIDDEN, text)


def _hide_user(found: re.Match[str]) -> str:
    scheme, user, password = found.groups()
    if password:
        return f"{scheme}{user}:{HIDDEN}@"
    # git@ is a name; what stands alone before the host of a page is a token.
    return f"{scheme}{HIDDEN}@" if scheme.lower().startswith("http") and user else found.group()


def _hide_assigned(found: re.Match[str], is_option: bool) -> str:
    name, sign, value = found["name"], found["sign"], found["value"]
    quote = value[0] if value[0] in "\"'" else ""
    bare = value.strip(quote) if quote else value
    # A colon also stands in sentences: "the key: it is under the mat".
    is_secret = is_secret_name(name, surely=":" in sign or not is_option)
    return f"{name}{sign}{quote}{_hidden(bare)}{quote}" if is_secret else found.group()


def _of_environment() -> list[str]:
    names = [name for name in os.environ if is_secret_name(name, surely=True)]
    values = {value for name in names if len(value := os.environ[name]) >= _SHORTEST}
    return sorted((value for value in values if _is_random(value)), key=len, reverse=True)


def _is_random(value: str) -> bool:
    kinds = {character.isalpha() for character in value if character.isalnum()}
    return len(kinds) == 2 and not any(character in "/ \n" for character in value)
