"""RoBERTa's byte-level BPE as a plugin: its options and its hook; imports no library."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins import Component, hookimpl, option


@dataclass(frozen=True)
class ByteBPEOptions:
    """How lines are read; everything else is in the merges."""

    prefix_space: bool = option(
        False,
        "begin lines with a space, so that their first word is tokenized as elsewhere; "
        "RoBERTa does not",
    )


@hookimpl
def xlm_tokenizers() -> list[Component]:
    return [
        Component(
            "bytebpe",
            "xlm_bytebpe.tokenizer:ByteBPE",
            ByteBPEOptions,
            "RoBERTa's: BPE over bytes, so that nothing is unknown (Radford et al. 2019)",
        )
    ]
