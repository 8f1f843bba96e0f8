"""The order in which gradients arrive, which is the order in which ZeRO 2 and 3 sum over ranks."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from xlm_plugins.testing.promises import demand


def order_of_gradients(module: nn.Module, loss: Callable[[], Tensor]) -> list[str]:
    """The parameters in the order in which a backward pass completes their gradients.

    :param loss: runs the module's forward pass.  Shape: ()
    """
    found: list[str] = []
    hooks = [
        parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
            functools.partial(_note, found, name)
        )
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    ]
    try:
        torch.autograd.backward(loss())
    finally:
        for hook in hooks:
            hook.remove()
    module.zero_grad()
    return found


def demand_one_order(usual: Sequence[str], found: Sequence[str], batches: tuple[str, str]) -> None:
    """Demand the same gradients in the same order.

    :param batches: the names of the usual batch and of the other one.
    """
    pairs = itertools.zip_longest(usual, found, fillvalue="none")
    for place, (one, other) in enumerate(pairs, start=1):
        differ = f"gradient {place} is {one} with {batches[0]}, {other} with {batches[1]}"
        demand(one == other, differ)


def _note(found: list[str], name: str, _: Tensor) -> None:
    found.append(name)
