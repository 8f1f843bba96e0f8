"""SentencePiece behind the `Tokenizer` contract.

Models that are trained here have XLM's layout of ids (`layouts`); XLM-R's models have their own.
Special tokens are SentencePiece control symbols: text that spells out ``<special1>`` never encodes
to the mask.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from xlm_plugins import BundleError, DataError, Ragged, Tokenizer, whole_file
from xlm_sentencepiece import SentencePieceOptions
from xlm_sentencepiece.hugging_face import as_tokenizers, find_model
from xlm_sentencepiece.layouts import NOTHING, XLM_ROLES, XLM_SPECIALS, IdLayout

MODEL_NAME = "sentencepiece.model"
# Expectation maximisation adds one partial sum per thread, and float sums depend on their order:
# only a fixed number of threads learns the same vocabulary on every machine.
N_TRAINING_THREADS = 8
# Protobuf merges concatenated messages.  This one, appended to a model, is
# ``normalizer_spec { add_dummy_prefix: false }``: the same model for text in mid-line.
NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"


class SentencePieceTokenizer(Tokenizer):
    """A trained SentencePiece model.

    :param model: the content of ``sentencepiece.model``.
    :raises BundleError: it is not a SentencePiece model, or has an unknown layout of ids.
    """

    def __init__(self, model: bytes) -> None:
        self._model = model
        self._at_start = _processor(model)
        self._in_line = _processor(model + NO_DUMMY_PREFIX)
        pieces = range(len(self._at_start))
        self._layout = IdLayout.of([self._at_start.id_to_piece(i) for i in pieces])
        self.begin_role = self._layout.begin_role
        # Text never encodes to control symbols, nor, if there are bytes, to <unk>.
        never = {self._layout.roles[role] for role in self.ROLES if role != "unk"}
        ids = self._layout.id_of_piece.tolist()
        never.update(ids[i] for i in pieces if self._at_start.is_control(i))
        if any(self._at_start.is_byte(i) for i in pieces):
            never.add(self._layout.roles["unk"])
        self._reserved = tuple(sorted(never))

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocabulary_size: int,
        options: SentencePieceOptions,
        folder: Path,
        workers: int,
    ) -> SentencePieceTokenizer:
        """Learn a vocabulary; the same text gives the same one, whatever the number of workers.

        SentencePiece keeps all texts in memory while it learns, so callers pass a sample.

        :param vocabulary_size: number of ids, special ones and bytes included.
        :param workers: not used: the vocabulary would depend on their number.
        :raises DataError: the text is not enough for that vocabulary; says which size is possible.
        """
        sentences = _Sentences(texts)
        written = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences),
                model_writer=written,
                **_training_arguments(vocabulary_size, options),
            )
        except RuntimeError as error:
            if sentences.error is not None:
                raise sentences.error from None
            raise _explained(str(error), vocabulary_size) from error
        tokenizer = cls(written.getvalue())
        tokenizer.save(folder)
        return tokenizer

    @classmethod
    def load(cls, folder: Path) -> SentencePieceTokenizer:
        path = folder / MODEL_NAME
        try:
            model = path.read_bytes()
        except FileNotFoundError as error:
            raise BundleError(
                f"{folder} holds no SentencePiece tokenizer: it has no {MODEL_NAME}",
                remedy=f"train one: xlm tokenizer train TEXT --out {folder}",
            ) from error
        return cls._of_file(path, model)

    @classmethod
    def _of_file(cls, path: Path, model: bytes) -> SentencePieceTokenizer:
        try:
            return cls(model)
        except BundleError as error:
            raise BundleError(
                f"{path} cannot be used: {error.problem}",
                expected=error.expected,
                remedy="copy the file again from where it was trained, or train it again",
            ) from error

    def save(self, folder: Path) -> None:
        with whole_file(folder / MODEL_NAME) as partial:
            partial.write_bytes(self._model)

    def encode_batch(self, texts: Sequence[str], *, continues: bool = False) -> Ragged:
        """Encode sentences; see `Tokenizer.encode_batch`.

        A text that continues a line and begins with a space begins a word: it encodes like the
        beginning of a line, ``▁and`` for `` and``, since SentencePiece drops outer spaces.
        """
        if continues:
            return self._ours(Ragged.of([self._encode_continuation(text) for text in texts]))
        # One small array per text: no Python object is made for each id.
        rows = self._at_start.encode(list(texts), return_type="numpy")
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        values = np.concatenate(rows) if rows else np.empty(0, np.int32)
        return self._ours(Ragged(values, offsets))

    def _ours(self, pieces: Ragged) -> Ragged:
        """Rows of SentencePiece's ids as rows of ours."""
        if self.begin_role == "eos":  # they are the same in XLM's layout
            return pieces
        return Ragged(self._layout.id_of_piece[pieces.values], pieces.offsets)

    def _encode_continuation(self, text: str) -> list[int]:
        processor = self._at_start if text[:1].isspace() else self._in_line
        ids: list[int] = processor.encode(text)
        return ids

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Decode rows of ids; special ids leave nothing, and invalid UTF-8 leaves ``�``.

        :raises DataError: an id is outside the vocabulary.
        """
        if not rows:
            return []  # SentencePiece would return one text
        n_ids = len(self._layout.tokens)
        pieces: list[list[int]] = []
        for row in rows:
            ids = np.asarray(row, np.int64)
            if len(ids) and not 0 <= ids.min() <= ids.max() < n_ids:
                wrong = ids.min() if ids.min() < 0 else ids.max()
                raise DataError(f"id {wrong}", expected=f"an id from 0 to {n_ids - 1}")
            found = self._layout.piece_of_id[ids]
            pieces.append(found[found != NOTHING].tolist())
        decoded: list[str] = self._at_start.decode(pieces)
        return decoded

    def tokens(self) -> list[str]:
        return list(self._layout.tokens)

    def special(self, role: str) -> int:
        return self._layout.roles[role]

    def reserved(self) -> tuple[int, ...]:
        return self._reserved

    @classmethod
    def from_hugging_face(cls, folder: Path) -> SentencePieceTokenizer | None:
        """XLM-R's tokenizer from a folder in Hugging Face's or fairseq's format.

        :returns: None if the folder has another type of tokenizer.
        :raises BundleError: its file is damaged.
        """
        return None if (found := find_model(folder)) is None else cls._of_file(*found)

    def to_hugging_face(self) -> Any:
        """The same tokenizer as a `tokenizers.Tokenizer` that adds no special tokens.

        :raises BundleError: that library has no model of this type.
        """
        return as_tokenizers(self._model, self._at_start, self._layout)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self._model).hexdigest()[:16]

    def __reduce__(self) -> tuple[type[SentencePieceTokenizer], tuple[bytes]]:
        return type(self), (self._model,)


class _Sentences:
    """The training text; keeps an error of its source, which would become a RuntimeError."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[str]:
        try:
            yield from self._texts
        except Exception as error:
            self.error = error
            raise


def _processor(model: bytes) -> Any:
    try:
        # One thread: callers with many texts spread them over processes.
        return sentencepiece.SentencePieceProcessor(model_proto=model, num_threads=1)
    except RuntimeError as error:
        raise BundleError(f"not a SentencePiece model: {error}") from error


def _training_arguments(vocabulary_size: int, options: SentencePieceOptions) -> dict[str, Any]:
    return {
        "model_type": options.model,
        "vocab_size": vocabulary_size,
        "byte_fallback": options.byte_fallback,
        "character_coverage": options.character_coverage,
        "normalization_rule_name": options.normalisation,
        "bos_id": XLM_ROLES["bos"],
        "eos_id": XLM_ROLES["eos"],
        "pad_id": XLM_ROLES["pad"],
        "unk_id": XLM_ROLES["unk"],
        "unk_surface": "",
        "control_symbols": list(XLM_SPECIALS[4:]),
        "max_sentence_length": 65536,  # bytes; longer lines are left out of training
        "num_threads": N_TRAINING_THREADS,
        "minloglevel": 2,
    }


def _explained(message: str, vocabulary_size: int) -> DataError:
    """SentencePiece's error, with a vocabulary size that works."""
    said = message.rpartition("] ")[2].strip()
    too_large = re.search(r"Vocabulary size too high \(\d+\).* <= (\d+)", said)
    if too_large:
        return DataError(
            f"the text is too small for a vocabulary of {vocabulary_size}; SentencePiece says: "
            f"{said}",
            expected=f"at most {too_large[1]}",
            remedy=f"--vocab-size {too_large[1]}, or more text",
        )
    too_small = re.search(r"smaller than required_chars. \d+ vs (\d+)", said)
    if too_small:
        return DataError(
            f"a vocabulary of {vocabulary_size} has no room for the special ids, the bytes and the "
            f"characters of the text; SentencePiece says: {said}",
            expected=f"at least {too_small[1]}",
            remedy=f"--vocab-size {too_small[1]} or, better, several times that",
        )
    if "sentences_.empty()" in message or "all_chars_count" in message:
        return DataError(
            "there is no text to learn a vocabulary from: every line is empty or over 65536 bytes",
            remedy="give text, one sentence per line",
        )
    return DataError(f"SentencePiece cannot learn a vocabulary from this text: {message}")
