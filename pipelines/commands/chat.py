"""The work of ``ogpsa chat``: the models to talk with."""

from __future__ import annotations

from pipelines.configs.chat import ChatConfig
from pipelines.evaluation.answering.chat import Speaker, open_speaker


def run(config: ChatConfig) -> list[Speaker]:
    """The one or two models, ready to answer.

    Raises:
        InputError: a model or template cannot be used.
        ArtifactError: a run does not verify.
    """
    names = [config.model] if config.against is None else [config.model, config.against]
    return [open_speaker(config, name) for name in names]
