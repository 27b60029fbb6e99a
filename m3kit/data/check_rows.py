"""What is likely wrong with a row by itself, and with the rows of a file together."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from m3kit.data.rowset import RowSet
from m3kit.data.settings import Settings
from m3kit.reading.near import NEAR, near_pairs, similarity
from m3kit.reading.problems import ASIDE, ERROR, NOTE, WARNING, Problem
from m3kit.reading.rows import Row
from m3kit.reading.text import damage, same_text, shown

# STS pairs of the same text that are said to mean less than this are contradictory.
SAME_TEXT_SCORE = 0.8
# Scores of one pair that differ by more contradict one another; by less, they are two people's opinions.
STS_CONTRADICTION = 0.3
# Rows that are compared with one another; where there are more, an even share of them is.
COMPARED = 50_000
# Near-duplicates of one row that are told.
TOLD_OF_ONE = 3
# Parts of a text that are looked up in another before the two are compared, and how many must be there.
PROBES, FOUND = 8, 5
# An id of a passage, such as 70001, D123 or msmarco_v2_17.
_ID = re.compile(r"[A-Za-z]*[-_:.]?[A-Za-z]*[-_:.]?[0-9][0-9A-Fa-f_:.-]*")
LONGEST_ID, MOSTLY = 40, 0.9


def row_problems(row: Row, kind: str) -> Iterator[tuple[str, str, str, str]]:
    """(severity, what, fix, code) of what is likely wrong with a row."""
    for text in row.texts:
        # With printable ASCII nothing can be wrong.
        if not (text.isascii() and text.isprintable()) and (found := damage(text)):
            code, what = found
            yield WARNING, f"{shown(text)!r} {what}", "write the text again from its source", code
    if kind == "sts":
        if row.keys[0] == row.keys[1] and row.value < SAME_TEXT_SCORE:
            what = f"both sentences are the same text, and the score is {row.value:g}"
            yield WARNING, what, "correct the score or delete the row", "sts-same-text"
    elif kind != "labelled":
        yield from _repeats(row) if len(set(row.keys)) < len(row.keys) else ()
        for right in row.positives:
            for wrong in row.negatives:
                if _may_be_near(right, wrong):
                    alike = similarity(same_text(right), same_text(wrong))
                    if NEAR <= alike < 1:
                        what = f"a negative is nearly a positive of its query (similarity {alike:.2f})"
                        yield NOTE, what, "delete it if it answers the query too", "negative-near-positive"


def _repeats(row: Row) -> Iterator[tuple[str, str, str, str]]:
    right, wrong = row.positive_keys, row.negative_keys
    if row.keys[0] in right:
        what, fix = "a positive is the query itself: it teaches nothing", "give the passage that answers the query"
        yield WARNING, what, fix, "positive-is-query"
    if row.keys[0] in wrong:
        yield WARNING, "a negative is the query itself", "delete that negative", "negative-is-query"
    if set(right) & set(wrong):
        yield WARNING, "a negative is a positive of its query", "delete the one that is wrong", "negative-is-positive"
    if len(set(right)) < len(right) or len(set(wrong)) < len(wrong):
        yield WARNING, "a passage is given twice", "delete the repeat", "passage-twice"


def _may_be_near(one: str, other: str) -> bool:
    """Whether two texts are about as long, and parts of the first stand in the second."""
    if not 0.75 * len(one) <= len(other) <= len(one) / 0.75:
        return False
    if len(one) < 40:
        return True
    step = len(one) // PROBES
    missing = PROBES - FOUND
    for at in range(0, PROBES * step, step):
        missing -= one[at : at + 3] not in other
        if missing < 0:
            return False
    return True


def set_problems(data: RowSet, settings: Settings) -> Iterator[Problem]:
    """What is wrong with the rows together. Rows that contradict one another are set aside where bad rows are."""
    yield from _repeated_rows(data, settings)
    if data.kind == "labelled":
        yield from _labels(data)
    yield from _ids(data)
    count = sum(1 for _ in data.used)
    if 0 < count < settings.batch_size:
        what = f"{count} rows are fewer than the {settings.batch_size} of a batch over all processes"
        yield data.problem(1, NOTE, what, "add rows; smaller batches are used for this file", "few-rows")


def _repeated_rows(data: RowSet, settings: Settings) -> Iterator[Problem]:
    """Rows that stand twice, and rows of the same text that disagree: only the user can know which is right."""
    groups: dict[object, list[Row]] = defaultdict(list)
    for row in data.rows:
        # Of an STS pair the order does not count.
        groups[tuple(sorted(row.keys)) if data.kind == "sts" else (row.keys, len(row.positives))].append(row)
    kept = "kept as they are" if data.kind == "native" else "merged into one"
    for first, *others in groups.values():
        contrary = _contrary(first, others, data.kind)
        if contrary:
            if data.kind == "sts":
                text, values, code = "pair", f"score {contrary.value:g} instead of {first.value:g}", "sts-contradiction"
            else:
                text, code = "text", "label-contradiction"
                values = f"label {shown(contrary.value)!r} instead of {shown(first.value)!r}"
            what = f"the same {text} as {data.where} {first.line}, with {values}"
            severity = ASIDE if settings.skip_bad_rows else ERROR
            yield data.problem(contrary, severity, what, "delete the wrong one", code)
            for row in (first, *others) if settings.skip_bad_rows else ():
                row.fate = row.fate or f"contradicts another row of the same text ({code})"
        else:
            for row in others:
                what = f"the same row as {data.where} {first.line}"
                yield data.problem(row, WARNING, what, f"delete it; such rows are {kept}", "row-twice")


def _contrary(first: Row, others: list[Row], kind: str) -> Row | None:
    """The row that disagrees most with the first, where rows of one text disagree."""
    if kind == "labelled":
        return next((row for row in others if row.value != first.value), None)
    scores = [row.value for row in (first, *others)] if kind == "sts" and others else [0]
    if max(scores) - min(scores) <= STS_CONTRADICTION:
        return None
    return max(others, key=lambda row: abs(row.value - first.value))


def _labels(data: RowSet) -> Iterator[Problem]:
    """Labels with one row, labels spelt in two ways, and numbers that stand for names."""
    first: dict[str, Row] = {}
    for row in data.rows:
        first.setdefault(row.value, row)
    counts = Counter(row.value for row in data.rows)
    spelt: dict[str, str] = {}
    for label, row in first.items():
        if counts[label] == 1:
            what = f"label {shown(label)!r} has this row only"
            yield data.problem(
                row, WARNING, what, "add rows of that label, or see whether it is misspelt", "label-once"
            )
        other = spelt.setdefault(same_text(label), label)
        if other != label:
            what = f"label {shown(label)!r} differs from {shown(other)!r} only in case or spaces"
            yield data.problem(row, WARNING, what, "write both alike if they mean the same", "label-spelling")
    if data.task == "classification" and all(data.label_texts.get(label, "").strip("-").isdigit() for label in first):
        names = ", ".join(f'"{label}": "…"' for label in sorted(first)[:3])
        what = f"the labels are bare numbers ({', '.join(sorted(first)[:3])}, …), which would be trained as texts"
        fix = f"write what they mean into {data.source.with_name('labels.json')}: {{{names}}}"
        yield data.problem(next(iter(first.values())), WARNING, what, fix, "label-numbers")


def _ids(data: RowSet) -> Iterator[Problem]:
    """Ids of passages in the place of passages."""
    if data.kind not in ("retrieval", "native"):
        return
    first = [row.positives[0] for row in data.rows if row.positives]
    ids = [text for text in first if len(text) < LONGEST_ID and _ID.fullmatch(text)]
    if len(ids) > MOSTLY * len(first) and len(first) > 4:
        example = ids[0]
        what = f"nearly all passages are ids, such as {shown(example)!r}, and would be trained as texts"
        yield data.problem(data.rows[0], WARNING, what, "put the passages' own texts in their place", "ids")


def near_duplicates(data: RowSet) -> Iterator[Problem]:
    """Rows whose query (whose pair, for STS) is nearly that of another row, but not the same."""
    name = {"sts": "pair", "labelled": "text"}.get(data.kind, "query")
    rows = data.rows[:: -(-len(data.rows) // COMPARED) or 1]
    queries: dict[object, Row] = {}
    for row in rows:
        queries.setdefault(tuple(sorted(row.keys)) if data.kind == "sts" else row.keys[0], row)
    rows = list(queries.values())
    texts = [same_text(f"{row.query} {row.positives[0]}" if data.kind == "sts" else row.query) for row in rows]
    fix = "delete one if they mean the same"
    fix += ": in one batch each is the other's negative" if data.task == "retrieval" else ""
    share = f" (of {len(rows)} rows that were compared)" if len(data.rows) > COMPARED else ""
    told: set[int] = set()
    for one, other, alike in near_pairs(texts, most=TOLD_OF_ONE):
        if other in told:
            continue
        told.add(other)
        what = f"nearly the same {name} as {data.where} {rows[one].line} (similarity {alike:.2f}){share}"
        yield data.problem(rows[other], NOTE, what, fix, "near-duplicate")
