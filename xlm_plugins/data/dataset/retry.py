"""Trying again, with growing pauses, what a file system or a server may do a moment later."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from xlm_plugins.core.errors import DataError

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between the tries of one thing."""

Result = TypeVar("Result")
_log = logging.getLogger(__name__)


class PermanentError(DataError):
    """No try will do better: a server says that there is no such file."""


def patiently(
    action: Callable[[], Result],
    pauses: Sequence[float],
    who: str = "",
    before_another: Callable[[], object] = lambda: None,
) -> Result:
    """What an action gives, tried again after each pause; every failure is logged.

    :param pauses: in seconds; there is one try more than pauses.
    :param who: what a log line begins with, such as ``rank 1: ``.
    :param before_another: called before each further try.
    :raises DataError: what the action raised last.
    """
    for pause in pauses:
        try:
            return action()
        except PermanentError:
            raise
        except DataError as error:
            _log.warning("%s%s; trying again in %g s", who, error.problem, pause)
        time.sleep(pause)
        before_another()
    return action()
