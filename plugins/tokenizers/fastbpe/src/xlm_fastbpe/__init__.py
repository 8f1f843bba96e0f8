"""XLM's tokenization as a plugin: its options and its hook; imports no library."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins import Component, hookimpl, option


@dataclass(frozen=True)
class FastBPEOptions:
    """How text is processed, and files to use instead of learning."""

    codes: str = option("", "a file of fastBPE codes, to use instead of learning codes", path=True)
    vocab: str = option(
        "",
        "a file of `token count` lines, used as it is whatever --vocab-size; without codes the "
        "text must already be split into its tokens",
        path=True,
    )
    languages: tuple[str, ...] = option(
        ("en",),
        "languages of the text; a text of unknown language is guessed to be in one of these, and "
        "in the first one if nothing tells",
        comma=True,
    )
    lowercase: bool = option(False, "convert words to lower case, as for XLM's 15-language models")
    remove_accents: bool = option(False, "remove accents, as for XLM's 15-language models")


@hookimpl
def xlm_tokenizers() -> list[Component]:
    return [
        Component(
            "fastbpe",
            "xlm_fastbpe.tokenizer:FastBPE",
            FastBPEOptions,
            "XLM's own: Moses rules, then BPE by fastBPE codes (arXiv 1508.07909)",
        )
    ]
