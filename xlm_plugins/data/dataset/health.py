"""What is wrong with a data set that trains all the same, known from its manifest alone.

`xlm prepare`, `xlm data` and `xlm train` show them, so nobody learns from a strange number at the
end that a language was never trained, or was spelled out byte by byte.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from xlm_plugins.data.dataset.manifest import TRAIN, Manifest, Stream

MOST_UNKNOWN = 0.01
"""Largest share of unknown tokens in a stream's language that is not warned of."""

MOST_TOKENS = 3.0
"""So many times the tokens per character of the other languages are not warned of."""

_SHOWN = 4
_SPLITS = (TRAIN, "valid", "test")
_OTHER_NAMES = {"dev": "valid", "development": "valid", "val": "valid", "eval": "valid"}


@dataclass(frozen=True)
class Finding:
    """What is wrong, and what can be done about it; nothing if it is as it should be."""

    problem: str
    hint: str

    def __str__(self) -> str:
        if not self.hint:
            return f"note: {self.problem}"
        return f"warning: {self.problem}\n  hint: {self.hint}"


@dataclass(frozen=True)
class Unused:
    """Files of the source that no stream uses, all for one reason.

    :param files: relative to the source, sorted; a hidden folder stands for all that is in it.
    :param hint: how to have them used; empty if they are not missed.
    """

    reason: str
    hint: str
    files: list[str]

    def finding(self) -> Finding:
        """In one sentence, with the first few names."""
        names = ", ".join(self.files[:_SHOWN])
        more = f" and {len(self.files) - _SHOWN:,} more" if len(self.files) > _SHOWN else ""
        return Finding(f"not used: {names}{more}: {self.reason}", self.hint)


def unused_files(manifest: Manifest) -> list[Finding]:
    """What lay beside the text that was prepared; older versions did not record it."""
    return [Unused(**group).finding() for group in manifest.source.get("unused", [])]


def findings(manifest: Manifest) -> list[Finding]:
    """All that can be told; what an older version did not count is not."""
    return [
        *_unused_splits(manifest),
        *_untrained(manifest),
        *_spelled_out(manifest),
        *_unknown(manifest),
    ]


def _unused_splits(manifest: Manifest) -> Iterator[Finding]:
    for split in sorted({stream.split for stream in manifest.streams} - set(_SPLITS)):
        names = ", ".join(s.name for s in manifest.streams if s.split == split)
        near = difflib.get_close_matches(split, _SPLITS, 1)
        meant = _OTHER_NAMES.get(split.lower(), near[0] if near else "valid")
        yield Finding(
            f"nothing uses the split {split} ({names}): training reads {TRAIN}, evaluation valid "
            "and test",
            f"did you mean {meant}? Rename it and prepare the text again",
        )


def _untrained(manifest: Manifest) -> Iterator[Finding]:
    """Held-out text of languages, or of pairs, that are not trained on."""
    trained = {s.languages for s in manifest.streams if s.split == TRAIN}
    known = {code for languages in trained for code in languages}
    held_out = [s for s in manifest.streams if s.split in _SPLITS and s.split != TRAIN]
    for languages in sorted({s.languages for s in held_out} - trained):
        names = ", ".join(s.name for s in held_out if s.languages == languages)
        if len(languages) == 1:
            if languages[0] not in known:
                yield Finding(
                    f"{languages[0]} has held-out text ({names}) and no training text",
                    f"add {TRAIN}.{languages[0]}.txt to the source and prepare it again; its "
                    "numbers are those of a language that the model has never seen",
                )
        else:
            yield Finding(
                f"{'-'.join(languages)} has held-out pairs ({names}) and no training pairs",
                f"add {TRAIN}.{'-'.join(languages)}.LANG.txt to the source and prepare it again, "
                "unless you train without pairs on purpose",
            )


def _spelled_out(manifest: Manifest) -> Iterator[Finding]:
    """Languages that the tokenizer divides into far more tokens than the others."""
    n_tokens: dict[str, int] = {}
    n_characters: dict[str, int] = {}
    for stream in manifest.streams:
        tokens, characters = _tokens(manifest, stream), _counts(manifest, stream, "n_characters")
        for code, of_tokens, of_text in zip(stream.languages, tokens, characters, strict=False):
            n_tokens[code] = n_tokens.get(code, 0) + of_tokens
            n_characters[code] = n_characters.get(code, 0) + of_text
    rates = {code: n_tokens[code] / n for code, n in n_characters.items() if n}
    for code, rate in sorted(rates.items()):
        others = [of_other for other, of_other in rates.items() if other != code]
        if others and rate > MOST_TOKENS * (usual := median(others)):
            yield Finding(
                f"the tokenizer spends {rate:.2f} tokens on a character of {code}, and "
                f"{usual:.2f} on one of the other languages (median): it spells {code} out",
                f"train a tokenizer on text that has enough of {code}: xlm prepare without "
                "--tokenizer-from, or with a larger --vocab-size; if a character is a word, as in "
                "Chinese, this is as it should be",
            )


def _unknown(manifest: Manifest) -> Iterator[Finding]:
    shares: dict[str, list[str]] = {}
    for stream in manifest.streams:
        unknown, tokens = _counts(manifest, stream, "n_unknown"), _tokens(manifest, stream)
        for code, n_unknown, n_tokens in zip(stream.languages, unknown, tokens, strict=False):
            if n_unknown > MOST_UNKNOWN * n_tokens:
                share = f"{n_unknown / n_tokens:.1%} of {stream.name}"
                shares.setdefault(code, []).append(share)
    for code, found in sorted(shares.items()):
        yield Finding(
            f"many tokens of {code} are unknown to the tokenizer: {', '.join(found)}",
            f"train a tokenizer on text that has enough of {code}, or one that falls back to bytes",
        )


def _tokens(manifest: Manifest, stream: Stream) -> list[int]:
    """Tokens of each language of a stream; nothing if they were not counted."""
    counted = _counts(manifest, stream, "n_tokens")
    return counted or ([stream.n_tokens] if len(stream.languages) == 1 else [])


def _counts(manifest: Manifest, stream: Stream, what: str) -> list[int]:
    """What `xlm prepare` counted for each language of a stream; nothing if it did not."""
    recorded: Mapping[str, list[int]] = manifest.source.get("streams", {}).get(stream.name, {})
    return recorded.get(what, [])
