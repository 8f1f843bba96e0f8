"""GPT-2's printable letter for each byte, which tokens are written in.

Bytes that are printable in Latin-1 stand for themselves; the others are, in order, the characters
from U+0100: a space is ``Ġ``.
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


def bytes_of(token: str) -> bytes:
    """The bytes of a token; a token that is not written in letters is plain text."""
    if all(letter in BYTE_OF for letter in token):
        return bytes(BYTE_OF[letter] for letter in token)
    return token.encode()
