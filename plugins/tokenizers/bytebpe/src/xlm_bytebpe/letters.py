"""A written form for each byte, as GPT-2 has it, so that tokens of bytes can be written.

Bytes that are printed in Latin-1 stand for themselves, and the others are, in their order, the
characters from U+0100 on: a space is ``Ġ``.
"""

from __future__ import annotations

_PRINTED = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = [byte for byte in range(256) if byte not in _PRINTED]

BYTE_OF = {chr(byte): byte for byte in _PRINTED} | {
    chr(0x100 + place): byte for place, byte in enumerate(_OTHERS)
}
"""The byte that each letter stands for."""

LETTERS = tuple(sorted(BYTE_OF))
SPACE = "Ġ"


def spelt(token: str) -> bytes:
    """The bytes of a token; what is not written in letters is its own text."""
    if all(letter in BYTE_OF for letter in token):
        return bytes(BYTE_OF[letter] for letter in token)
    return token.encode()
