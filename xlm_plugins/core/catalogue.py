"""The built-in plugins by name: the only distributions that a message ever tells to install.

Anyone can register a name on the package index, so what a user typed is never turned into one.
"""

from __future__ import annotations

_BUILT_IN = {
    "objective": ("ae", "bt", "clm", "mlm", "mt", "pc", "tlm"),
    "layer": ("adapter", "pkm"),
    "tokenizer": ("bytebpe", "fastbpe", "sentencepiece"),
    "task": ("classify", "glue", "retrieval", "xnli"),
}


def distribution_of(kind: str, name: str) -> str | None:
    """The distribution of ours that provides a component; None for any other name."""
    return f"xlm-{name}" if name in _BUILT_IN.get(kind, ()) else None
