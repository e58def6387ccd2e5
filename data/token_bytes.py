"""The bytes that each token adds to a text, for search that follows given text.

Bytes, because a character may be spelled in several pieces. A text is the surfaces of its ids one
after the other, but for the space that it may begin or end with.
"""

import re

_BYTE = re.compile("<0x([0-9A-F]{2})>")


def piece_surface(piece: str, is_byte: bool) -> bytes:
    """That of a SentencePiece piece, "\u2581red" or "<0x0A>"."""
    if is_byte and (found := _BYTE.fullmatch(piece)):
        return bytes([int(found[1], 16)])
    return piece.replace("\u2581", " ").encode(errors="replace")


def byte_level_surface(token: str) -> bytes:
    """That of a token of GPT-2's alphabet, in which each byte is a printable character."""
    try:
        return bytes(_BYTES[character] for character in token)
    except KeyError:  # an added token: plain text
        return token.encode(errors="replace")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's: a printable byte of Latin-1 is itself, others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + number): byte for number, byte in enumerate(others)
    }


_BYTES = _byte_alphabet()
