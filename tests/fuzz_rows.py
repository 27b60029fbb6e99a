"""Rows of every format, many of them spoilt, and damage to bytes: what hypothesis draws from."""

from __future__ import annotations

from hypothesis import strategies as st

FOLDER = {
    "retrieval": "retrieval",
    "sts": "sts",
    "labelled": "classification-no_in_batch_neg",
    "native": "retrieval",
}
# Texts that are the same but for case or width, and texts of which nothing is seen.
_FEW = st.sampled_from(["a", "A", "ａ", "a b", "a  b", "", " ", "\u200b", "\u3164\ufe0f", "\u00a0\n", "\x00", "\ufeff"])
_NASTY = st.text(st.sampled_from("ab:\"',;\t\n\r\\[]{}\u2028\x85\x1c\ufeff\ufffd é中😀𝄞"), max_size=8)
CELLS = (_FEW | _NASTY | st.text(max_size=10)).map(lambda text: text.replace("\x00", ""))
TEXTS = _FEW | _NASTY | st.text(max_size=10) | st.sampled_from(["\ud800", "a\udfffb"])
SEEN = st.sampled_from(["a", "b", "ca", "what is x?", "中", "é: \"'", "_"]) | _NASTY.map(lambda text: f"x{text}")
NUMBERS = (
    st.integers(-3, 3) | st.integers() | st.floats() | st.sampled_from([2**63, 2**64, -(2**63) - 1, 10**400, 1e-320])
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.sampled_from(["text", "title"]), inner, max_size=3)
    ),
    max_leaves=4,
)
_LIST = st.lists(SEEN, min_size=1, max_size=3)
_PASSAGE = st.fixed_dictionaries({"text": SEEN}, optional={"title": st.none() | SEEN | st.just(""), "docid": VALUES})
_PASSAGES = SEEN | _LIST | _PASSAGE | st.lists(SEEN | _PASSAGE, min_size=1, max_size=3)
_SCORES = st.floats(0, 1) | st.sampled_from([0, 1, 0.8, 0.4])
GOOD_ROWS = {
    "retrieval": st.fixed_dictionaries(
        {"query": SEEN, "positive": _PASSAGES},
        optional={"negative": st.none() | st.just("") | st.just([]) | _PASSAGES, "id": VALUES},
    ),
    "sts": st.fixed_dictionaries({"sentence1": SEEN, "sentence2": SEEN, "score": _SCORES}, optional={"id": VALUES}),
    "labelled": st.fixed_dictionaries(
        {"text": SEEN, "label": SEEN | st.sampled_from(["x", "y_z", 0, 1, "1", -0])}, optional={"id": VALUES}
    ),
    "native": st.fixed_dictionaries(
        {"query": SEEN, "pos": _LIST},
        optional={
            "neg": st.none() | st.lists(SEEN, max_size=2),
            "prompt": st.none() | TEXTS.filter(lambda text: text.isascii()),
            "type": st.sampled_from([None, "retrieval", "only_1neg"]),
            "batch_size": st.integers(1, 9),
            "pos_scores": st.lists(NUMBERS, max_size=3),
            "neg_scores": st.lists(NUMBERS, max_size=3),
        },
    ),
}
_NAMES = st.sampled_from(
    ["query", "positive", "negative", "pos", "neg", "prompt", "type", "batch_size", "train_group_size", "pos_scores",
     "neg_scores", "sentence1", "sentence2", "score", "text", "label", "id"]
)  # fmt: skip


@st.composite
def _spoilt(draw, kind: str) -> object:
    """A row with up to two changes: a field dropped, replaced, wrapped or added, or no object at all."""
    row = draw(GOOD_ROWS[kind])
    for change in draw(st.lists(st.sampled_from(["drop", "replace", "wrap", "add"]), max_size=2)):
        name = draw(st.sampled_from(sorted(row))) if row else "id"
        if change == "drop":
            row.pop(name, None)
        elif change == "wrap":
            row[name] = draw(st.sampled_from([[row.get(name)], {"text": row.get(name)}, [[row.get(name)]]]))
        else:
            row[draw(_NAMES) if change == "add" else name] = draw(VALUES)
    return row


RECORDS = {kind: st.one_of(good, good, good, *[_spoilt(kind)] * 4, VALUES) for kind, good in GOOD_ROWS.items()}

# By these the format of a file is told, and they alone can be trained on.
FIRST = {
    "retrieval": [{"query": f"query {n}", "positive": f"answer {n}", "negative": f"other {n}"} for n in range(2)],
    "sts": [{"sentence1": f"one {n}", "sentence2": f"other {n}", "score": 1} for n in range(2)],
    "labelled": [{"text": f"text {n}", "label": "xy"[n % 2]} for n in range(4)],
    "native": [{"query": f"query {n}", "pos": [f"answer {n}"], "neg": [f"other {n}"]} for n in range(2)],
}


# Bytes that mean something to one reader or another.
_PIECES = [
    b'"', b"'", b"[", b"]", b"{", b"}", b",", b":", b";", b"\t", b"\r", b"\\", b"\0", b"\x1a", b" ", b"\xc3", b"\xa9",
    b"\xff",
    b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\x80", b'\\ud800', b'{"query": ', b'"query": "z", ', b'"text" : "z", ',
    b"null",
    b"NaN", b"1e999", b"\r\n", b"\n", b"\r\r\n", b"\xc2\xa0", b"PAR1", b"\x1f\x8b\x08", b'""',
]  # fmt: skip
# (where, as a share of the whole; what is done there; a length; a piece)
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from(["insert", "insert", "delete", "cut", "double", "flip"]),
        st.integers(1, 20),
        st.sampled_from(_PIECES) | st.binary(min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=3,
)


def edited(content: bytes, edits: list[tuple[float, str, int, bytes]]) -> bytes:
    for share, what, length, piece in edits:
        at = int(share * len(content))
        if what == "insert":
            content = content[:at] + piece + content[at:]
        elif what == "delete":
            content = content[:at] + content[at + length :]
        elif what == "cut":
            content = content[:at]
        elif what == "double":
            content = content[: at + length] + content[at:]
        else:
            content = content[:at] + bytes(byte ^ 1 for byte in content[at : at + 1]) + content[at + 1 :]
    return content
