"""Options that put a finished model on the hub."""

from __future__ import annotations

from pydantic import field_validator

from pipelines.core.config import CommandConfig, option


class PublishingConfig(CommandConfig):
    """Where a finished model is put for others."""

    push_to_hub: str | None = option(
        None,
        "Push the finished model to this repository of the hub, as NAME/REPO, with the account that 'hf auth login' or "
        "HF_TOKEN gives. If that fails, the same command pushes again and trains nothing.",
        panel="Output",
        runtime=True,
    )
    hub_private: bool = option(
        False,
        "Make the repository of --push-to-hub private, where it does not exist yet.",
        panel="Output",
        runtime=True,
        needs="push_to_hub",
    )

    @field_validator("push_to_hub")
    @classmethod
    def _is_a_repository(cls, name: str | None) -> str | None:
        if name is None:
            return None
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils._validators import validate_repo_id

        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise ValueError(f"'{name}' cannot be the name of a repository on the hub: write NAME/REPO") from error
        return name
