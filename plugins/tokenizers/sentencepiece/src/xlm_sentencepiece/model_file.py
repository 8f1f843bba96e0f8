"""Reading and writing SentencePiece's model file, a protobuf message.

The library returns pieces and scores, but not how text is normalised, and it cannot make a model
from a vocabulary that was learned elsewhere.  Its generated code for the message,
``sentencepiece_model_pb2``, refuses all versions of protobuf that are older than its own, and few
fields matter here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NORMAL, UNKNOWN, CONTROL = 1, 2, 3
"""Kinds of pieces."""

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_MODEL_TYPES = {1: "unigram", 2: "bpe"}
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5


@dataclass(frozen=True)
class Specification:
    """How a model tokenizes text.

    :param kind: ``unigram`` or ``bpe``.
    :param charsmap: the compiled table of the normalisation of characters; may be empty.
    :param begins_with_space: whether a space is put before text that does not begin with one.
    :param drops_spaces: whether outer and repeated spaces are removed.
    """

    kind: str
    charsmap: bytes = b""
    begins_with_space: bool = True
    drops_spaces: bool = True


@dataclass(frozen=True)
class Piece:
    """A piece of a vocabulary and its log-probability."""

    text: str
    score: float
    kind: int = NORMAL


def read_specification(model: bytes) -> Specification:
    """How a model tokenizes text; repeated messages are merged, and the last value counts.

    :raises ValueError: the model is neither unigram nor BPE.
    """
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    for number, value in _fields(model):
        if isinstance(value, bytes) and number == _TRAINER:
            trainer.update(_fields(value))
        elif isinstance(value, bytes) and number == _NORMALIZER:
            normalizer.update(_fields(value))
    model_type = int(trainer.get(3, 1))
    if model_type not in _MODEL_TYPES:
        raise ValueError(f"a SentencePiece model of type {model_type}, neither unigram nor BPE")
    charsmap = normalizer.get(2, b"")
    return Specification(
        _MODEL_TYPES[model_type],
        charsmap if isinstance(charsmap, bytes) else b"",
        bool(normalizer.get(3, 1)),
        bool(normalizer.get(4, 1)),
    )


def write_unigram(pieces: Sequence[Piece], specification: Specification) -> bytes:
    """The model file of a unigram vocabulary."""
    written = b"".join(_message(_PIECES, _piece(piece)) for piece in pieces)
    texts = [piece.text for piece in pieces]
    trainer = _number(3, 1) + _number(4, len(pieces))
    for number, text in ((40, "<unk>"), (41, "<s>"), (42, "</s>")):
        trainer += _number(number, texts.index(text))
    trainer += _number(43, (1 << 64) - 1)  # -1: no <pad>
    normalizer = _message(2, specification.charsmap) + _number(3, specification.begins_with_space)
    normalizer += _number(4, specification.drops_spaces) + _number(5, 1)
    return written + _message(_TRAINER, trainer) + _message(_NORMALIZER, normalizer)


def _piece(piece: Piece) -> bytes:
    score = _key(2, _FOUR_BYTES) + struct.pack("<f", piece.score)
    return _message(1, piece.text.encode()) + score + _number(3, piece.kind)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The numbers and values of a message's fields, in order."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(message, at)
        else:
            length = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}[wire]
        yield number, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _written_varint(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes([*written, value])


def _key(number: int, wire: int) -> bytes:
    return _written_varint(number << 3 | wire)


def _number(number: int, value: int) -> bytes:
    return _key(number, _VARINT) + _written_varint(int(value))


def _message(number: int, content: bytes) -> bytes:
    return _key(number, _BYTES) + _written_varint(len(content)) + content
