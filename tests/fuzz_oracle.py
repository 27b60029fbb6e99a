"""Which rows are good, told in the simplest way: what the kit says must agree with it."""

from __future__ import annotations

import json
import math
import re
import unicodedata

BLANK, GOOD, BAD = "blank", "good", "bad"
NEEDED = {
    "native": {"query", "pos"},
    "retrieval": {"query", "positive"},
    "sts": {"sentence1", "sentence2", "score"},
    "labelled": {"text", "label"},
}
FILLERS = {0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0}
FILLERS |= {*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}


def verdict(kind: str, line: bytes) -> tuple[str, dict | None]:
    """(what the line is, the row) among rows of a format."""
    if not line.strip() or not line.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r"):
        return BLANK, None
    try:
        row = json.loads(line.removeprefix(b"\xef\xbb\xbf").decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return BAD, None
    if isinstance(row, dict):
        row = {_spelt(name, row): value for name, value in row.items()}
    good = isinstance(row, dict) and not has_surrogate(row) and is_good(kind, row)
    return (GOOD, row) if good else (BAD, None)


def _spelt(name: str, row: dict) -> str:
    """A known name that is written with spaces, hyphens or capitals."""
    bare = re.sub(r"[\s_-]", "", name).casefold()
    return bare if bare in set().union(*NEEDED.values()) - row.keys() else name


def _once(pairs: list[tuple[str, object]]) -> dict:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


def has_surrogate(value: object) -> bool:
    if isinstance(value, str):
        return any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, dict):
        return any(map(has_surrogate, [*value, *value.values()]))
    return isinstance(value, list) and any(map(has_surrogate, value))


def is_good(kind: str, row: dict) -> bool:
    names = set(row)
    if {"sentence1", "sentence2", "label"} <= names and "score" not in names:
        if "text" in names:
            return False
        row = {"score" if name == "label" else name: value for name, value in row.items()}
    if [name for name, needed in NEEDED.items() if needed <= set(row)] != [kind]:
        return False
    return {"retrieval": _retrieval, "sts": _sts, "labelled": _labelled, "native": _native}[kind](row)


def folded(text: str) -> str:
    """The form in which two texts count as the same."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def is_seen(text: object) -> bool:
    return isinstance(text, str) and any(
        not character.isspace()
        and unicodedata.category(character) not in ("Cc", "Cf")
        and ord(character) not in FILLERS
        for character in text
    )


def passages(value: object) -> list[object]:
    """The texts of a positive or a negative; what is no text stays what it is."""
    found = []
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict) and isinstance(item.get("text"), str):
            title = item.get("title")
            if title is None or isinstance(title, str):
                item = f"{title} {item['text']}" if title and title.strip() else item["text"]
        found.append(item)
    return found


def negatives(value: object) -> list[object]:
    """Those of a row: none where the value is null, empty, or pandas' NaN."""
    return [] if value is None or value != value or value in ("", [""]) else passages(value)


def _retrieval(row: dict) -> bool:
    wrong, right = negatives(row.get("negative")) + negatives(row.get("neg")), passages(row["positive"])
    return bool(right) and all(map(is_seen, [row["query"], *right, *wrong]))


def _sts(row: dict) -> bool:
    return (
        is_seen(row["sentence1"])
        and is_seen(row["sentence2"])
        and is_number(number(row["score"]))
        and 0 <= number(row["score"]) <= 1
    )


def _labelled(row: dict) -> bool:
    label = row["label"]
    return is_seen(row["text"]) and (is_seen(label) or is_whole(label))


def _native(row: dict) -> bool:
    pos, neg = passages(row["pos"]), negatives(row.get("neg")) + negatives(row.get("negative"))
    row = {name: value for name, value in row.items() if value == value}  # NaN is null
    if not pos or not all(map(is_seen, [row["query"], *pos, *neg])):
        return False
    if not all(row.get(name) is None or isinstance(row[name], str) for name in ("prompt", "type")):
        return False
    if not all(
        row.get(name) is None or (is_whole(row[name]) and row[name] > 0) for name in ("batch_size", "train_group_size")
    ):
        return False
    scores = [row.get("pos_scores"), row.get("neg_scores")]
    return scores == [None, None] or all(
        isinstance(given, list) and len(given) == len(texts) and all(map(is_number, given))
        for given, texts in zip(scores, (pos, neg), strict=True)
    )


def number(value: object) -> object:
    """A number in quotes is one."""
    try:
        return float(value) if isinstance(value, str) and "_" not in value else value
    except ValueError:
        return value


def is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 10**300 if isinstance(value, int) else math.isfinite(value)


def is_whole(value: object) -> bool:
    """A whole number, as far as JSON parsers agree on what that is."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**64


def texts_of(kind: str, row: dict) -> list[str]:
    """All that may train of a good row."""
    if kind == "sts":
        return [row["sentence1"], row["sentence2"]]
    if kind == "labelled":
        label = str(row["label"])
        return [row["text"], label, label.replace("_", " ")]
    if kind == "native":
        return [row["query"], *passages(row["pos"]), *negatives(row.get("neg")), *negatives(row.get("negative"))]
    return [row["query"], *passages(row["positive"]), *negatives(row.get("negative")), *negatives(row.get("neg"))]


def check_agrees(
    kind: str, good: list[dict], bad: list[int], sets: list, problems: list[dict], made: dict | None
) -> None:
    """What was said of a file is what the oracle says of it, and what trains stands in its good rows."""
    told = [p["line"] for p in problems if p["severity"] == "error" and not p["code"].endswith("-contradiction")]
    assert sorted(told) == bad
    (data,) = sets
    assert (len(data.rows), data.bad.total()) == (len(good), len(bad))
    if made:
        assert made["entry"]["rows_read"] == len(good) + len(bad)
        allowed = {text for row in good for text in texts_of(kind, row)}
        for row in made["rows"]:
            assert {row["query"], *row["pos"], *row["neg"]} <= allowed
        told = [row["line"] for row in made["rejected"] if row["code"] not in ("set-aside", "no-negative")]
        assert sorted(told) == bad
        check_rows(kind, good, made)


def check_rows(kind: str, good: list[dict], made: dict) -> None:
    """Each good row is among what trains: by itself, or merged into that of the same query."""
    rows, useless = made["rows"], sum(row["code"] == "no-negative" for row in made["rejected"])
    if kind == "native" and not useless:
        assert [(row["query"], row["pos"]) for row in rows] == [(row["query"], passages(row["pos"])) for row in good]
        for row, given in zip(rows, good, strict=True):
            neg = negatives(given.get("negative")) + negatives(given.get("neg"))
            assert row["neg"][: len(neg)] == neg
    elif kind == "labelled":
        pairs = {(row["query"], *row["pos"]) for row in rows}
        assert pairs <= {(row["text"], text) for row in good for text in texts_of(kind, row)[1:]}
    elif kind == "retrieval":
        right: dict[str, set[str]] = {}
        for row in good:
            right.setdefault(folded(row["query"]), set()).update(map(folded, passages(row["positive"])))
        assert len(rows) + useless == len(right)
        for row in rows:
            assert set(map(folded, row["pos"])) == right[folded(row["query"])]
            assert not set(map(folded, row["neg"])) & right[folded(row["query"])]
