"""The errors that users see."""

from __future__ import annotations

import pytest

import xlm_plugins
from xlm_plugins import DivergenceError, RunError, XLMError


def test_an_error_has_problem_expectation_and_hint() -> None:
    error = XLMError("it is 3", expected="2 or less", remedy="--it 2")
    assert str(error).splitlines() == ["it is 3", "expected: 2 or less", "hint: --it 2"]
    assert (error.problem, error.expected, error.remedy) == ("it is 3", "2 or less", "--it 2")


def test_empty_parts_are_left_out() -> None:
    assert str(XLMError("it is 3")) == "it is 3"


@pytest.mark.parametrize("name", [n for n in xlm_plugins.__all__ if n.endswith("Error")])
def test_every_public_error_has_an_exit_status(name: str) -> None:
    error = getattr(xlm_plugins, name)
    assert issubclass(error, XLMError)
    assert error.exit_status == 2


def test_divergence_is_a_run_error() -> None:
    assert issubclass(DivergenceError, RunError)
