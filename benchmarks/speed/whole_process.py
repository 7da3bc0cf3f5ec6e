"""The environment of a process whose start is timed."""

from __future__ import annotations

import os


def usual_environment() -> dict[str, str]:
    """This process's environment, with Python keeping what it compiles, as it does where nobody forbids it.

    Where it is forbidden (as in many container images), every start compiles a checkout again, which no user of an
    installed package waits for.
    """
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
