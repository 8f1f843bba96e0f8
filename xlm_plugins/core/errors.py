"""The errors that users see.

Each says what was given, what was expected, and a hint.  The command line prints them
without a traceback and exits with status 2 (``--debug`` shows the traceback).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

RESUMABLE_STATUS = 75
"""Exit status of a run that ended early and can be resumed (EX_TEMPFAIL)."""

NETRC_HINT = (
    "put them into ~/.netrc, which only you may read (chmod 600): "
    "machine HOST login NAME password PASSWORD"
)
"""Where names and passwords of servers belong."""

# A password may hold slashes.  A number before the first slash is a port, and no password.
_PASSWORD = re.compile(r"\b([A-Za-z][\w+.-]*:/{1,2})(?:[^/\s]*|[^/\s]*:(?!\d+/)\S*)@")


def without_passwords(text: str) -> str:
    """A text without the names and passwords in its URLs: ``http://NAME:PASSWORD@HOST``."""
    return _PASSWORD.sub(r"\1", text)


class XLMError(Exception):
    """An error that the user can fix.

    :param problem: what was given and why it cannot work, in one sentence.
    :param expected: what would have been accepted.
    :param remedy: the hint; a command if there is one.
    """

    exit_status = 2

    def __init__(self, problem: str, *, expected: str = "", remedy: str = "") -> None:
        self.problem = without_passwords(problem)
        self.expected = without_passwords(expected)
        self.remedy = without_passwords(remedy)
        lines = [self.problem]
        if expected:
            lines.append(f"expected: {self.expected}")
        if remedy:
            lines.append(f"hint: {self.remedy}")
        super().__init__("\n".join(lines))


class OptionError(XLMError):
    """A flag or TOML key that is unknown, out of range, or does not apply to what is selected.

    :param option: the option whose value it is about, such as ``optimizer.lr``, if it is one.
    """

    def __init__(
        self, problem: str, *, expected: str = "", remedy: str = "", option: str = ""
    ) -> None:
        self.option = option
        super().__init__(problem, expected=expected, remedy=remedy)


class SeveralOptionsError(OptionError):
    """Several options that cannot be used, told at once.

    :param errors: one for each, two at least.
    """

    def __init__(self, errors: Sequence[OptionError]) -> None:
        self.errors = errors
        listed = [str(error).replace("\n", "\n  ") for error in errors]
        super().__init__("\n".join([f"{len(errors)} options cannot be used:", *listed]))


def raise_together(errors: Sequence[OptionError]) -> None:
    """Raise errors as one; nothing if there are none.

    :raises OptionError: there is an error: that one, or `SeveralOptionsError`.
    """
    each = [
        one for e in errors for one in (e.errors if isinstance(e, SeveralOptionsError) else [e])
    ]
    if each:
        raise each[0] if len(each) == 1 else SeveralOptionsError(each)


def refuse_password(argument: str) -> None:
    """Refuse a URL with a name or password before it lands in a run's folder or on the screen.

    :param argument: any value that was given; text with spaces is no URL.
    :raises OptionError: it is such a URL.
    """
    shown = without_passwords(argument).partition("?")[0]
    if "@" in argument and not argument.startswith(shown) and not re.search(r"\s", argument):
        raise OptionError(
            f"{shown} was given with a name or password, which would be recorded",
            remedy=f"leave them out of the URL, and {NETRC_HINT}",
        )


class PluginError(XLMError):
    """A plugin that is missing, broken, ambiguous or built for another core."""


class DataError(XLMError):
    """Text, shards or a data set that cannot be used as they are."""


class BundleError(XLMError):
    """A model, tokenizer or checkpoint that is missing, damaged or does not fit."""


class RunError(XLMError):
    """A run that cannot start, continue or be resumed."""


class DivergenceError(RunError):
    """Losses that stay non-finite: training cannot continue."""
