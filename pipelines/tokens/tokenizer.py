"""Loads a model's tokenizer, with the chat template that is asked for, or refuses it with a reason."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from data_registry.core.errors import InputError, first_line
from data_registry.core.regular_files import check_regular
from data_registry.hub import network
from pipelines.models.files import CONFIG, check_values
from pipelines.models.foreign import foreign_files
from pipelines.models.limits import Limits, limits_of_source
from pipelines.tokens.rendering import EndlessTemplateError, render_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pipelines.models.reference import ModelSource

logger = logging.getLogger(__name__)

_TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt")


def load_source_tokenizer(
    source: ModelSource, *, chat_template: Path | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model; an adapter without a tokenizer has that of its base.

    Args:
        source: the model or adapter.
        chat_template: as for :func:`load_tokenizer`.
        trust_remote_code: as for :func:`load_tokenizer`.

    Raises:
        InputError: as for :func:`load_tokenizer`, or the model's configuration cannot be used.
        ArtifactError: the model changed while it was being read.
    """
    tokens = source.tokenizer_source
    if (tokens.directory / CONFIG).is_file():
        check_values(tokens.directory)
    tokenizer = load_tokenizer(
        tokens.path_or_id,
        chat_template=chat_template,
        revision=tokens.revision,
        trust_remote_code=trust_remote_code,
    )
    _pad_within(tokenizer, limits_of_source(source, trust_remote_code=trust_remote_code))
    source.check_unchanged()
    return tokenizer


def load_tokenizer(
    path_or_id: str | Path,
    *,
    chat_template: Path | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedTokenizerBase:
    """Load a tokenizer, replace its chat template if one is given, and make sure that it has a padding token.

    A tokenizer without a padding token pads with its end-of-sequence token, or else its unknown token: the vocabulary
    never grows, so that the model's embeddings fit.

    Args:
        path_or_id: a model or tokenizer directory, or a hub id.
        chat_template: a file with a Jinja template that replaces the tokenizer's own.
        revision: the commit, tag or branch if the model is on the hub.
        trust_remote_code: run Python code that comes with the tokenizer.

    Raises:
        InputError: there is no tokenizer, it cannot be read, the template is not Jinja, or it has no token to
            pad with.
    """
    name = str(path_or_id)
    _check_directory(name)
    from transformers import AutoTokenizer

    if not Path(name).exists():
        network.settle()
    elif (Path(name) / CONFIG).is_file():
        # transformers reads it to find the tokenizer, and what is wrong with it is no fault of the tokenizer.
        check_values(Path(name))
    with foreign_files(
        f"no tokenizer can be loaded from '{name}'",
        fix="name a directory with tokenizer.json; without a network, fetch the model beforehand",
    ):
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise InputError(
            f"the tokenizer of '{name}' has no padding, end-of-sequence or unknown token to pad with",
            fix="set pad_token in its tokenizer_config.json to a token that it has",
        )
    if chat_template is not None:
        _set_template(tokenizer, chat_template)
    return tokenizer


def _pad_within(tokenizer: PreTrainedTokenizerBase, limits: Limits) -> None:
    """Pad with a token that the model knows, where the padding token was added without giving the model room for it.

    Padding is masked, so that it does not matter which token it is; that it has an embedding does.

    Raises:
        InputError: there is no such token.
    """
    number = limits.num_embeddings
    if number is None or int(tokenizer.pad_token_id) < number:
        return
    own, own_id = tokenizer.pad_token, tokenizer.pad_token_id
    for token in (tokenizer.eos_token, tokenizer.unk_token, tokenizer.bos_token):
        if token is not None and int(tokenizer.convert_tokens_to_ids(token)) < number:
            logger.warning(
                "the padding token %r has the id %d, and the model has embeddings for %d only; %r pads in its place",
                own, own_id, number, token,
            )  # fmt: skip
            tokenizer.pad_token = token
            return
    raise InputError(
        f"the padding token '{own}' has the id {own_id}, and the model has embeddings for {number} only",
        where=f"tokenizer '{tokenizer.name_or_path}'",
        fix="set pad_token in its tokenizer_config.json to a token that the model has",
    )


def _check_directory(name: str) -> None:
    """Refuse paths that the libraries would take for a hub id, or would meet with an unspecific exception."""
    path = Path(name)
    if not path.exists():
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise InputError(f"the tokenizer '{name}' does not exist")
        return
    if not path.is_dir():
        raise InputError(f"'{name}' is a file, where a directory with a tokenizer is needed")
    if not any((path / file).is_file() for file in _TOKENIZER_FILES):
        raise InputError(f"'{name}' holds no tokenizer", fix=f"it needs one of: {', '.join(_TOKENIZER_FILES)}")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        if (path / file).is_file():
            try:
                content = json.loads((path / file).read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                raise InputError(
                    f"the tokenizer file cannot be read: {first_line(error)}", where=str(path / file)
                ) from error
            if not isinstance(content, dict) or (file == "tokenizer.json" and "model" not in content):
                raise InputError("this is not a tokenizer of Hugging Face", where=str(path / file))
            longest = content.get("model_max_length")
            if longest is not None and (isinstance(longest, bool) or not isinstance(longest, int | float)):
                raise InputError(
                    f"'model_max_length' must be a number of tokens, got {str(longest)[:60]!r}", where=str(path / file)
                )


def _set_template(tokenizer: PreTrainedTokenizerBase, file: Path) -> None:
    import jinja2

    check_regular(file, "a chat template")
    try:
        tokenizer.chat_template = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the chat template cannot be read: {error}", where=str(file)) from error
    try:
        render_template(tokenizer, [{"role": "user", "content": "a"}])
    except EndlessTemplateError as error:
        raise EndlessTemplateError(error.what, where=str(file)) from error
    except InputError as error:
        # A template may demand more than one user message; each row is checked later.
        cause = error.__cause__
        if isinstance(cause, jinja2.TemplateSyntaxError):
            where = f"{file}:{cause.lineno}"
            raise InputError(f"the chat template is not Jinja: {cause.message}", where=where) from cause
