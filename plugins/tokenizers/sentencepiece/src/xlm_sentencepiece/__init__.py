"""The SentencePiece tokenizer as a plugin: its options and its hook, without its weight."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins import Component, hookimpl, option


@dataclass(frozen=True)
class SentencePieceOptions:
    """How a vocabulary is learnt; once learnt, the model file carries all of it."""

    model: str = option("unigram", "what cuts words into pieces", choices=("unigram", "bpe"))
    byte_fallback: bool = option(
        True, "write unknown characters as UTF-8 bytes (256 ids), so that nothing is unknown"
    )
    character_coverage: float = option(
        0.9995,
        "share of the text's characters that get pieces of their own",
        minimum=0.98,
        maximum=1.0,
    )
    normalisation: str = option(
        "nmt_nfkc",
        "what text goes through first; _cf folds case, identity changes nothing",
        choices=("nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"),
    )


@hookimpl
def xlm_tokenizers() -> list[Component]:
    return [
        Component(
            "sentencepiece",
            "xlm_sentencepiece.tokenizer:SentencePieceTokenizer",
            SentencePieceOptions,
            "subword pieces learnt from raw text, unigram or BPE (arXiv 1808.06226)",
        )
    ]
