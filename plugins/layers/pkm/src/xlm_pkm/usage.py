"""How evenly a memory is used: counts of reads, and the measures of the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


class Usage:
    """Number of reads and total weight of each slot.

    Not a module, since counters must not be cast when an engine casts buffers to half precision.

    :param n_slots: rows of the value table.
    """

    def __init__(self, n_slots: int) -> None:
        self.n_slots = n_slots
        self.reset()

    def reset(self) -> None:
        """Set the counters to zero."""
        self._reads: Tensor | None = None
        self._weights: Tensor | None = None

    def count(self, slots: Tensor, weights: Tensor) -> None:
        """Count reads; weights count by their absolute value.

        :param slots: shape (n_tokens, n_read).
        :param weights: shape (n_tokens, n_read).
        """
        flat, size = slots.flatten(), weights.detach().abs().flatten().double()
        reads = torch.bincount(flat, minlength=self.n_slots).double()
        summed = torch.bincount(flat, size, self.n_slots)
        # Not in place: the counters may be inference tensors.
        self._reads = reads if self._reads is None else self._reads + reads
        self._weights = summed if self._weights is None else self._weights + summed

    def counters(self, device: torch.device) -> dict[str, Tensor]:
        """``reads`` and ``weights``, zeros if nothing was counted. Shape of each: (n_slots,)"""
        nothing = torch.zeros(self.n_slots, dtype=torch.float64, device=device)
        return {
            "reads": nothing if self._reads is None else self._reads,
            "weights": nothing if self._weights is None else self._weights,
        }


def usage_metrics(counters: Mapping[str, Tensor]) -> dict[str, float]:
    """Share of slots that were read, and how far the reads are from uniform.

    :param counters: as returned by `Usage.counters`, or sums of these.
    :returns: ``usage`` in percent; ``kl`` and ``kl_weighted`` in nats.  Empty without reads.
    """
    reads, weights = counters["reads"], counters["weights"]
    if not reads.sum() > 0:
        return {}
    return {
        "usage": 100.0 * float((reads > 0).double().mean()),
        "kl": _divergence_from_uniform(reads),
        "kl_weighted": _divergence_from_uniform(weights),
    }


def _divergence_from_uniform(counts: Tensor) -> float:
    """log n + sum p log p, in nats. Shape of the counts: (n,)"""
    shares = counts / counts.sum()
    return math.log(len(counts)) + float(torch.xlogy(shares, shares).sum())
