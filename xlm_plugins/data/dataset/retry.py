"""Retrying, with growing pauses, what a file system or a server may well do a moment later."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from xlm_plugins.core.errors import DataError
from xlm_plugins.core.messages import warn

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between attempts; there is one attempt more than pauses."""

Result = TypeVar("Result")


class PermanentError(DataError):
    """Retrying will not help: the server says that there is no such file, for example."""


def with_retries(
    action: Callable[[], Result],
    log_prefix: str = "",
    before_retry: Callable[[], object] = lambda: None,
) -> Result:
    """The result of an action, retried after each of `PAUSES`; every failure is logged.

    :param log_prefix: starts each log line, such as ``rank 1: ``.
    :raises DataError: the error of the last attempt, or a `PermanentError` at once.
    """
    for pause in PAUSES:
        try:
            return action()
        except PermanentError:
            raise
        except DataError as error:
            warn(f"{log_prefix}{error.problem}; trying again in {pause:g} s")
        time.sleep(pause)
        before_retry()
    return action()
