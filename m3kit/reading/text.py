"""When two texts count as the same, and what makes a text damaged."""

from __future__ import annotations

import re
import unicodedata

from xxhash import xxh3_64_intdigest

# What no keyboard writes and most tokenizers make an unknown token of. Tab and line ends are text; zero-width joiners
# are spelling in Persian and in Indian scripts.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufff9-\ufffb]")
# What a decoder leaves in the place of bytes that it could not read.
REPLACEMENT = "\ufffd"
# Characters that show nothing and are neither white space nor control or formatting characters: fillers, joiners and
# variation selectors that Unicode has renderers ignore, and the braille pattern without dots.
_FILLERS = frozenset(
    map(
        chr,
        (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0)
        + (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)),
    )
)
# As much of a user's text as a message shows.
SHOWN = 60


def same_text(text: str) -> str:
    """The form in which two texts count as the same: NFKC, case folded, white space folded."""
    if text.isascii():
        return " ".join(text.lower().split())
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def key_of(text: str) -> int:
    """A 64-bit number for all texts that count as the same.

    Among 12 million texts the chance that any two share a number is 4 in a million.
    """
    return xxh3_64_intdigest(same_text(text).encode("utf-8", "surrogatepass"))


def is_blank(text: str) -> bool:
    """Whether nothing of the text would be seen: white space, control and formatting characters, fillers."""
    first = text[:1]
    if first.isalnum() and first not in _FILLERS:  # as nearly every text begins
        return False
    return all(
        character.isspace() or character in _FILLERS or unicodedata.category(character) in ("Cc", "Cf")
        for character in text
    )


def shown(text: str) -> str:
    """The text as far as a message shows it: a forgotten quote may have made it megabytes long."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def damage(text: str) -> tuple[str, str] | None:
    """(code, what is wrong) of a text with control or replacement characters in it, or None."""
    if text.isprintable() and REPLACEMENT not in text:
        return None
    if found := _CONTROL.search(text):
        return "control-character", f"holds the control character U+{ord(found[0]):04X}"
    if REPLACEMENT in text:
        return "replacement-character", "holds U+FFFD, which stands where a character was lost"
    return None
