"""The errors that users see.

Each says what was given, what was expected, and a hint.  The command line prints them
without a traceback and exits with status 2 (``--debug`` shows the traceback).
"""

from __future__ import annotations

RESUMABLE_STATUS = 75
"""Exit status of a run that ended early and can be resumed (EX_TEMPFAIL)."""


class XLMError(Exception):
    """An error that the user can fix.

    :param problem: what was given and why it cannot work, in one sentence.
    :param expected: what would have been accepted.
    :param remedy: the hint; a command if there is one.
    """

    exit_status = 2

    def __init__(self, problem: str, *, expected: str = "", remedy: str = "") -> None:
        self.problem = problem
        self.expected = expected
        self.remedy = remedy
        lines = [problem]
        if expected:
            lines.append(f"expected: {expected}")
        if remedy:
            lines.append(f"hint: {remedy}")
        super().__init__("\n".join(lines))


class OptionError(XLMError):
    """A flag or TOML key that is unknown, out of range, or does not apply to what is selected."""


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
