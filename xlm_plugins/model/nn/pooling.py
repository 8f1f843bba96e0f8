"""Pooling: one vector per sequence, from the states of its tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_inside(states: Tensor, offsets: Tensor) -> Tensor:
    """The mean over each sequence without its first and last token, which are its frame.

    :param states: shape (n_tokens, dim).
    :param offsets: where sequences begin, and the end.  Shape: (n_sequences + 1,)
    :returns: shape (n_sequences, dim).
    """
    begin, end = offsets[:-1] + 1, offsets[1:] - 1
    end = torch.maximum(end, begin + 1)  # an empty sentence gets the state of its closing EOS
    lengths = end - begin
    n_sequences = len(lengths)
    sequence = torch.repeat_interleave(torch.arange(n_sequences, device=states.device), lengths)
    firsts = torch.cumsum(lengths, 0) - lengths
    inside = torch.arange(len(sequence), device=states.device) + (begin - firsts)[sequence]
    sums = states.new_zeros(n_sequences, states.shape[1])
    sums = sums.index_add(0, sequence, states.index_select(0, inside))
    return sums / lengths[:, None].to(states.dtype)
