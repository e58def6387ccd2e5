"""Token surfaces: the bytes that each token adds to a text, for searches with a prefix.

Bytes, because a character may be split into several pieces. A text is the concatenation of its ids'
surfaces, except for a leading or trailing space.
"""

import re

_BYTE = re.compile("<0x([0-9A-F]{2})>")


def piece_surface(piece: str, is_byte: bool) -> bytes:
    """The surface of a SentencePiece piece, "\u2581red" or "<0x0A>"."""
    if is_byte and (match := _BYTE.fullmatch(piece)):
        return bytes([int(match[1], 16)])
    return piece.replace("\u2581", " ").encode(errors="replace")


def byte_level_surface(token: str) -> bytes:
    """The surface of a token in GPT-2's alphabet, which maps each byte to a printable character."""
    try:
        return bytes(_BYTES[character] for character in token)
    except KeyError:  # an added token: plain text
        return token.encode(errors="replace")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 bytes map to themselves, others to U+0100 and up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unprintable = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + index): byte for index, byte in enumerate(unprintable)
    }


_BYTES = _byte_alphabet()
