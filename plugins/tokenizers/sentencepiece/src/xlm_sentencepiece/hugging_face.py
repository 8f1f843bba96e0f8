"""Exporting to Hugging Face's `tokenizers`, and importing XLM-R's tokenizer from its files.

With the same scores, bytes and normalisation, `tokenizers` tokenizes as SentencePiece does, except
that text which spells out a special token is that token there, but plain text here.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlm_plugins import BundleError
from xlm_sentencepiece.layouts import NOTHING, XLM_R_SPECIALS, IdLayout
from xlm_sentencepiece.model_file import (
    CONTROL,
    UNKNOWN,
    Piece,
    Specification,
    read_specification,
    write_unigram,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.models import BPE, Unigram

MODEL_NAMES = ("sentencepiece.bpe.model", "sentencepiece.model")
FAST_NAME = "tokenizer.json"
SPACE = "▁"
# Special tokens and bytes are among the pieces there, but text that spells one out must not match
# it: no segmentation is bad enough for this score to win, unless a character is unknown, which
# always costs more.  Such text is therefore split after its first character.
NEVER = -1e4


def find_model(folder: Path) -> tuple[Path, bytes] | None:
    """The SentencePiece model of XLM-R's tokenizer, from a folder in Hugging Face's format.

    :returns: the file that it comes from, and the model; None if there is neither a model nor a
        tokenizer that can be converted into one.
    :raises BundleError: a file cannot be read.
    """
    for name in MODEL_NAMES:
        if (path := folder / name).is_file():
            return path, path.read_bytes()
    path = folder / FAST_NAME
    if not path.is_file():
        return None
    try:
        model = _model_of(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    return None if model is None else (path, model)


def _model_of(tree: dict[str, Any]) -> bytes | None:
    """The SentencePiece model behind a unigram tokenizer.json with XLM-R's ids."""
    model = tree["model"]
    vocabulary = model.get("vocab")
    if model.get("type") != "Unigram" or not isinstance(vocabulary, list):
        return None
    texts = [text for text, _ in vocabulary]
    if tuple(texts[:4]) != XLM_R_SPECIALS or texts[-1] != "<mask>":
        return None
    pieces = [Piece("<unk>", 0.0, UNKNOWN), Piece("<s>", 0.0, CONTROL), Piece("</s>", 0.0, CONTROL)]
    pieces += [Piece(text, score) for text, score in vocabulary[4:-1]]
    return write_unigram(pieces, Specification("unigram", _charsmap(tree.get("normalizer"))))


def _charsmap(normalizer: dict[str, Any] | None) -> bytes:
    for step in (normalizer or {}).get("normalizers", [normalizer or {}]):
        if step.get("type") == "Precompiled":
            return base64.b64decode(step["precompiled_charsmap"])
    return b""


def as_tokenizers(model: bytes, processor: Any, layout: IdLayout) -> Tokenizer:
    """A SentencePiece model as a `tokenizers.Tokenizer` with the ids of a layout.

    :param processor: SentencePiece's processor of that model.
    :raises BundleError: `tokenizers` has no model of that type.
    """
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers

    try:
        specification = read_specification(model)
    except ValueError as error:
        raise BundleError(f"Hugging Face's tokenizers cannot represent {error}") from error
    build = _unigram if specification.kind == "unigram" else _bpe
    tokenizer = Tokenizer(build(processor, layout))
    tokenizer.normalizer = _normalizer(specification)
    # Without splitting, because pieces may contain a space.
    prepend = "first" if specification.begins_with_space else "never"
    steps: list[Any] = [pre_tokenizers.Metaspace(SPACE, prepend, split=False)]
    if forms := _spelt_out(processor, layout):
        steps.append(pre_tokenizers.Split(Regex(f"<(?={'|'.join(forms)})"), "isolated"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.ByteFallback(),
            decoders.Replace(SPACE, " "),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def _spelt_out(processor: Any, layout: IdLayout) -> list[str]:
    """Patterns of special pieces that text must not match, from their second character."""
    forms = ["0x[0-9A-F]{2}>"] if _has_bytes(processor) else []
    return forms + (["special[0-9]>"] if "<special0>" in layout.tokens else [])


def _normalizer(specification: Specification) -> Any:
    from tokenizers import Regex, normalizers

    steps: list[Any] = []
    if specification.charsmap:
        steps.append(normalizers.Precompiled(specification.charsmap))
    if specification.drops_spaces:
        steps.append(normalizers.Replace(Regex(" +"), " "))
        # A space at the beginning may follow a mask, and then begins a word.
        steps.append(normalizers.Replace(Regex(" $"), ""))
    return normalizers.Sequence(steps)


def _unigram(processor: Any, layout: IdLayout) -> Unigram:
    from tokenizers.models import Unigram

    vocabulary = []
    for text, piece in zip(layout.tokens, layout.piece_of_id.tolist(), strict=True):
        score = processor.get_score(piece) if _is_text(processor, piece) else NEVER
        vocabulary.append((text, score))
    return Unigram(vocabulary, layout.roles["unk"], byte_fallback=_has_bytes(processor))


def _bpe(processor: Any, layout: IdLayout) -> BPE:
    """Byte-pair encoding: a piece is a merge of two others; higher scores are merged earlier."""
    from tokenizers.models import BPE

    ids = {text: number for number, text in enumerate(layout.tokens)}
    scores: dict[str, float] = {
        text: processor.get_score(piece)
        for text, piece in zip(layout.tokens, layout.piece_of_id.tolist(), strict=True)
        if _is_text(processor, piece)
    }
    merges: list[tuple[str, str]] = []
    for text in sorted(scores, key=lambda text: -scores[text]):
        cuts = ((text[:i], text[i:]) for i in range(1, len(text)))
        merges += [(left, right) for left, right in cuts if left in scores and right in scores]
    return BPE(
        ids,
        merges,
        unk_token=layout.tokens[layout.roles["unk"]],
        fuse_unk=True,
        byte_fallback=_has_bytes(processor),
    )


def _is_text(processor: Any, piece: int) -> bool:
    """Whether a piece stands for its own text, unlike control symbols, bytes and ``<unk>``."""
    return piece != NOTHING and not (
        processor.is_control(piece) or processor.is_byte(piece) or processor.is_unknown(piece)
    )


def _has_bytes(processor: Any) -> bool:
    return any(processor.is_byte(piece) for piece in range(len(processor)))
