"""Whether the hub can be reached, found out once: without it its libraries try for half a minute, file by file."""

from __future__ import annotations

import logging
import os
import ssl
import sys
import urllib.error
import urllib.request
from functools import cache
from http.client import HTTPException
from typing import Final

logger = logging.getLogger(__name__)

TIMEOUT_S: Final = 10.0


def settle() -> None:
    """Where the hub cannot be reached, work offline from now on, as ``HF_HUB_OFFLINE=1`` does from the beginning."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or _answers(constants.ENDPOINT):
        return
    logger.warning("the hub (%s) cannot be reached: what was fetched before is used", constants.ENDPOINT)
    constants.HF_HUB_OFFLINE = True
    os.environ["HF_HUB_OFFLINE"] = "1"  # for processes that are started, and libraries that are imported, later
    if "datasets" in sys.modules:
        import datasets.config

        datasets.config.HF_HUB_OFFLINE = True


@cache
def _answers(endpoint: str) -> bool:
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return True
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        # A certificate that is not trusted here may be to the libraries: let them say what is wrong with it.
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, HTTPException):
        return False
