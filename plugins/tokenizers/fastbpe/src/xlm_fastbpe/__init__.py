"""XLM's tokenization as a plugin: its options and its hook, without its weight."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins import Component, hookimpl, option


@dataclass(frozen=True)
class FastBPEOptions:
    """What the text goes through, and the files to take where nothing is to be learnt."""

    codes: str = option("", "a file of fastBPE codes; none are learnt then", path=True)
    vocab: str = option(
        "",
        "a file of `token count` lines, whose ids are taken as they are whatever --vocab-size; "
        "without codes the text must be cut into its tokens already",
        path=True,
    )
    languages: tuple[str, ...] = option(
        ("en",),
        "languages of the text; where a text's own is not told it is guessed among these, "
        "and is the first where nothing shows it",
        comma=True,
    )
    lowercase: bool = option(False, "write words in lower case, as XLM's 15-language models do")
    remove_accents: bool = option(False, "take accents off, as XLM's 15-language models do")


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
