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


def same_text(text: str) -> str:
    """The form in which two texts count as the same: NFKC, case folded, white space folded."""
    if text.isascii():
        # What nearly every English line is: already clean but for the case. isprintable rules out tabs and line ends.
        if text.isprintable() and "  " not in text and text[:1] != " " and text[-1:] != " ":
            return text.lower()
        return " ".join(text.lower().split())
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def keys_of(texts: list[str]) -> tuple[list[str], list[int], list[int]]:
    """The ``same_text`` form of each text, a 64-bit key of it, and its size in bytes.

    Keys stand for texts wherever all texts of a set would not fit into memory. Among 12 million texts the chance that
    any two share a key is 4 in a million.
    """
    same = [same_text(text) for text in texts]
    encoded = [text.encode("utf-8") for text in same]
    return same, [xxh3_64_intdigest(data) for data in encoded], [len(data) for data in encoded]


def is_blank(text: str) -> bool:
    """Whether nothing of the text would be seen: white space, control and formatting characters."""
    return not text.strip() or (
        not text.isprintable()
        and all(character.isspace() or unicodedata.category(character) in ("Cc", "Cf") for character in text)
    )


def damage(text: str) -> tuple[str, str] | None:
    """(code, what is wrong) of a text with control or replacement characters in it, or None."""
    if text.isprintable() and REPLACEMENT not in text:
        return None
    if found := _CONTROL.search(text):
        return "control-character", f"holds the control character U+{ord(found[0]):04X}"
    if REPLACEMENT in text:
        return "replacement-character", "holds U+FFFD, which stands where a character was lost"
    return None
