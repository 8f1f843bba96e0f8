"""The SentencePiece tokenizer as a plugin: its options and its hook; imports no library."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins import Component, hookimpl, option


@dataclass(frozen=True)
class SentencePieceOptions:
    """How a vocabulary is learned; a learned model file contains all of it."""

    model: str = option("unigram", "the algorithm", choices=("unigram", "bpe"))
    byte_fallback: bool = option(
        True, "encode unknown characters as UTF-8 bytes (256 ids), so that nothing is unknown"
    )
    character_coverage: float = option(
        0.9995,
        "share of the text's characters that get their own pieces",
        minimum=0.98,
        maximum=1.0,
    )
    normalisation: str = option(
        "nmt_nfkc",
        "how text is normalised first; _cf folds case, identity changes nothing",
        choices=("nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"),
    )


@hookimpl
def xlm_tokenizers() -> list[Component]:
    return [
        Component(
            "sentencepiece",
            "xlm_sentencepiece.tokenizer:SentencePieceTokenizer",
            SentencePieceOptions,
            "subword pieces learned from raw text, unigram or BPE (arXiv 1808.06226)",
        )
    ]
