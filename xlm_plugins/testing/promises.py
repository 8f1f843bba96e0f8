"""Promises: what a contract demands of a component, each checked by a small function.

The function examines a case, and reports what it finds if the promise is broken::

    @promise("in eval mode rows do not affect each other", "Layer.forward")
    def keeps_rows_apart(case: LayerCase) -> None:
        ...
        demand(close(alone, together), f"row {row} changes with the rows beside it")
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

CaseT = TypeVar("CaseT")


class BrokenPromiseError(AssertionError):
    """A component does not do what its contract says.

    :param promise: the name of the promise, which is that of the function that checks it.
    """

    def __init__(self, message: str, promise: str) -> None:
        super().__init__(message)
        self.promise = promise


@dataclass(frozen=True)
class Promise(Generic[CaseT]):
    """One demand of a contract.

    :param name: for code and tests.
    :param text: for people: what is promised.
    :param place: where the contract says so, such as ``Objective.make_batch``.
    :param check: checks a case; it reports what is wrong by `demand`, or by raising an error.
    """

    name: str
    text: str
    place: str
    check: Callable[[CaseT], None]


def promise(text: str, place: str) -> Callable[[Callable[[CaseT], None]], Promise[CaseT]]:
    """Make a function the check of a promise; see `Promise`."""

    def of(check: Callable[[CaseT], None]) -> Promise[CaseT]:
        return Promise(check.__name__, text, place, check)

    return of


class _FoundError(Exception):
    """What was found instead of what was promised."""


def demand(holds: bool, found: str) -> None:
    """Report what was found, unless the promise holds."""
    if not holds:
        raise _FoundError(found)


def hold(owner: str, promises: Iterable[Promise[CaseT]], case: CaseT) -> None:
    """Check a component's promises, in order.

    :param owner: the name of the component, for the error.
    :raises BrokenPromiseError: for the first promise that it breaks.
    """
    __tracebackhide__ = True
    for one in promises:
        try:
            one.check(case)
        except _FoundError as found:
            raise _broken(owner, one, str(found)) from None
        except Exception as error:
            raise _broken(owner, one, f"{type(error).__name__}: {error}") from error


def _broken(owner: str, broken: Promise[Any], found: str) -> BrokenPromiseError:
    lines = [
        f"{owner} breaks a promise of its contract ({broken.name})",
        f"promised: {broken.text}",
        f"by: {broken.place}; see docs/plugins.md and help(xlm_plugins.{broken.place})",
        f"found: {found}",
    ]
    return BrokenPromiseError("\n".join(lines).replace("\n", "\n  "), broken.name)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore the states of all random number generators at the end."""
    import numpy as np
    import torch

    plain, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(arrays)
