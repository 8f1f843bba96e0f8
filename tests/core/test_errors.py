"""The family of errors that users meet."""

from __future__ import annotations

import pytest

import xlm_plugins
from xlm_plugins import DivergenceError, RunError, XLMError


def test_an_error_says_what_was_wrong_what_was_expected_and_the_hint() -> None:
    error = XLMError("it is 3", expected="2 or less", remedy="--it 2")
    assert str(error).splitlines() == ["it is 3", "expected: 2 or less", "hint: --it 2"]
    assert (error.problem, error.expected, error.remedy) == ("it is 3", "2 or less", "--it 2")


def test_what_is_not_known_is_left_out() -> None:
    assert str(XLMError("it is 3")) == "it is 3"


@pytest.mark.parametrize("name", [n for n in xlm_plugins.__all__ if n.endswith("Error")])
def test_every_public_error_ends_with_the_status_of_the_family(name: str) -> None:
    error = getattr(xlm_plugins, name)
    assert issubclass(error, XLMError)
    assert error.exit_status == 2


def test_divergence_is_a_run_that_cannot_go_on() -> None:
    assert issubclass(DivergenceError, RunError)
