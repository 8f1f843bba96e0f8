"""Denoising auto-encoding as a plugin: its options and its hook, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins import Component, hookimpl, option


@dataclass(frozen=True)
class NoiseOptions:
    """The noise in what the encoder reads (arXiv 1711.00043, section 2.3)."""

    word_shuffle: float = option(
        3.0, "tokens move by less than this many places; 0 keeps their order", minimum=0.0
    )
    word_dropout: float = option(
        0.1, "share of tokens left out; one per sentence stays", minimum=0.0, maximum=1.0
    )
    word_blank: float = option(0.1, "share of tokens shown as MASK", minimum=0.0, maximum=1.0)


@hookimpl
def xlm_objectives() -> list[Component]:
    return [
        Component(
            "ae",
            "xlm_ae.objective:DenoisingAutoEncoding",
            NoiseOptions,
            "denoising auto-encoding: restore a sentence from a noisy copy (arXiv 1711.00043)",
        )
    ]
