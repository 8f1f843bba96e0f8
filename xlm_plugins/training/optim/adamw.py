"""AdamW that can leave rows without a gradient unchanged: lazy Adam by row.

A *row* of a parameter is a slice along its first axis; in a memory's value table it is one slot.
In a group with ``touched_rows``, update number t of the run does exactly this:

- A row whose gradient, summed over micro-batches and ranks, is zero in every element is
  untouched.  It keeps its weights and both moments, bit for bit: nothing decays.
- Every other row gets update number t, as in any other group.  The bias corrections count the
  run's updates and not those of the row, as in `torch.optim.SparseAdam`.

So a parameter without a gradient does not change, and if all rows are touched, the update is the
ordinary one.  Unlike in ordinary Adam, momentum does not move a row while it is not read.

Two cases are undefined.  Clipping can make a gradient zero by underflow alone; ZeRO clips before
it looks for touched rows, the torch engine after.  And if ZeRO splits a row between two ranks, each
rank decides for its own part, which differs only if the gradient of just one part is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What Adam keeps for each parameter, by torch's names."""

CPU_CHUNK, DEVICE_CHUNK = 2**21, 2**27
"""Bytes of one tensor to process at a time; a CPU's should fit into its cache."""

_State = Sequence[Tensor]
"""Weights and both moments of some rows. Shape of each: (n_rows, ...)"""

_Update = Callable[[_State, Tensor], None]
"""Updates a state in place, by a gradient."""


@dataclass(frozen=True)
class Piece:
    """The part of a parameter in a flat tensor, such as ZeRO's partition of a group.

    :param start: where it starts in the flat tensor.
    :param n: number of elements.
    :param offset: where it starts in the parameter, in elements.
    :param row: elements per row of the parameter.
    """

    start: int
    n: int
    offset: int
    row: int

    def blocks(self, flat: Tensor) -> Iterator[Tensor]:
        """Views of the piece: the end of a row that starts elsewhere, whole rows, a row's start.

        :returns: those that are not empty. Shape of each: (n_rows, row), or (1, less)
        """
        n_end = min(-self.offset % self.row, self.n)
        n_whole, n_beginning = divmod(self.n - n_end, self.row)
        start = self.start
        for n_rows, length in ((1, n_end), (n_whole, self.row), (1, n_beginning)):
            if n_rows * length:
                yield flat.narrow(0, start, n_rows * length).view(n_rows, length)
            start += n_rows * length


class AdamW(torch.optim.AdamW):
    """torch's fused AdamW, which in groups with ``touched_rows`` updates touched rows only.

    :param groups: as torch's, each with a ``touched_rows``.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, fused=True)
        self.pieces: dict[Tensor, list[Piece]] = {}
        """The pieces in each flat tensor.  A tensor without an entry has its own rows."""

    def start(self, tensors: Iterable[Tensor], n_updates: int) -> None:
        """Create the state, which torch creates on the first update and `step` needs before.

        :param tensors: what will be updated: parameters, or ZeRO's flat partitions.
        :param n_updates: updates made so far.
        """
        for tensor in tensors:
            state = self.state[tensor]
            state["step"] = torch.tensor(float(n_updates), device=tensor.device)
            for key in MOMENTS:
                state[key] = torch.zeros_like(tensor, memory_format=torch.preserve_format)

    @torch.no_grad()
    def step(self, closure: None = None, scale: float = 1.0) -> None:  # type: ignore[override]
        """Update everything that has a gradient.

        :param scale: multiplies the gradients first, some of them in place.
        """
        groups = self.param_groups
        ordinary = [group for group in groups if not group["touched_rows"]]
        found = [p.grad for group in ordinary for p in group["params"] if p.grad is not None]
        if scale != 1.0 and found:
            torch._foreach_mul_(found, scale)
        self.param_groups = ordinary
        try:
            super().step()
        finally:
            self.param_groups = groups
        for group in groups:
            if group["touched_rows"]:
                self._step_touched(group, scale)

    def _step_touched(self, group: dict[str, Any], scale: float) -> None:
        for tensor in group["params"]:
            own = self.state[tensor]
            own["step"] += 1
            if tensor.grad is None:
                continue
            update = partial(_adamw, group, own["step"], scale)
            whole = [*map(torch.atleast_1d, (tensor, *(own[key] for key in MOMENTS), tensor.grad))]
            if tensor not in self.pieces:
                update_touched(whole[:3], whole[3], update)
            for piece in self.pieces.get(tensor, ()):
                for *state, gradient in zip(*map(piece.blocks, whole), strict=True):
                    update_touched(state, gradient, update)


def update_touched(state: _State, gradient: Tensor, update: _Update) -> None:
    """Update the rows that have a gradient, in the cheaper of two ways with the same result.

    A few rows are gathered, updated and written back.  If most rows have a gradient, all rows are
    updated, and the others are then restored.

    :param update: updates whole tensors in place; may change the gradient.
    """
    touched = _touched(gradient)
    index = touched.nonzero().squeeze(1)
    n_at_a_time = _rows_in_a_chunk(gradient)
    if 2 * len(index) > len(touched) and all(t.is_contiguous() for t in (*state, gradient)):
        chunks = (torch.split(tensor, n_at_a_time) for tensor in (*state, gradient, ~touched))
        for *part, its_gradient, kept in zip(*chunks, strict=True):
            others = kept.nonzero().squeeze(1)
            before = _gather(part, others)
            update(part, its_gradient)
            _put_back(part, others, before)
    elif len(index):
        for some in torch.split(index, max(1, n_at_a_time // 4)):  # copies need room, too
            gathered = _gather(state, some)
            update(gathered, gradient.index_select(0, some))
            _put_back(state, some, gathered)


def _gather(state: _State, index: Tensor) -> list[Tensor]:
    return [tensor.index_select(0, index) for tensor in state]


def _put_back(state: _State, index: Tensor, gathered: _State) -> None:
    """`index_copy_` copies element by element, so elements are made as large as possible."""
    for pair in zip(state, gathered, strict=True):
        into, source = (t.view(torch.complex128) for t in pair) if all(map(_wide, pair)) else pair
        into.index_copy_(0, index, source)


def _wide(tensor: Tensor) -> bool:
    """Whether rows can be viewed as elements of 16 bytes."""
    size = tensor.element_size()
    return (
        tensor.dim() > 1
        and tensor.is_contiguous()
        and tensor.shape[-1] * size % 16 == 0
        and tensor.storage_offset() * size % 16 == 0
    )


def _touched(gradient: Tensor) -> Tensor:
    """Which rows have a nonzero element. Shape: (n_rows,)

    One pass over memory: the second reduction of a chunk finds it in the cache.
    """
    flat = gradient.reshape(len(gradient), -1)
    parts = torch.split(flat, _rows_in_a_chunk(flat))
    return torch.cat([part.amax(1).ne(0) | part.amin(1).ne(0) for part in parts])


def _rows_in_a_chunk(tensor: Tensor) -> int:
    n_bytes = CPU_CHUNK if tensor.device.type == "cpu" else DEVICE_CHUNK
    return max(1, n_bytes * len(tensor) // tensor.nbytes)


def _adamw(
    group: dict[str, Any], step: Tensor, scale: float, state: _State, gradient: Tensor
) -> None:
    weights, first, second = state
    if scale != 1.0:
        gradient.mul_(scale)
    torch._fused_adamw_(
        [weights],
        [gradient],
        [first],
        [second],
        [],
        [step],
        lr=group["lr"],
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
    )
