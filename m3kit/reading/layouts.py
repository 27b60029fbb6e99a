"""Which field of a row stands in which column: the kit's own names, those of other tools, and rows that nest them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from m3kit.reading.problems import ERROR, BadRow, Problem
from m3kit.reading.sources import data_kind
from m3kit.reading.text import SHOWN, shown

# The fields of each kind, in the order in which the kinds are tried where the columns have other names.
COLUMNS = {
    "sts": ("sentence1", "sentence2", "score"),
    "graded": ("query", "passage", "grade"),
    "retrieval": ("query", "positive"),
    "labelled": ("text", "label"),
    "native": ("query", "pos"),
}
NATIVE_EXTRA = {"prompt": str, "type": str, "batch_size": int, "train_group_size": int, "pos_scores": list,
                "neg_scores": list}  # fmt: skip
# What --columns may name.
FIELDS = (*dict.fromkeys(name for kind in COLUMNS.values() for name in kind), "negative", "neg", *NATIVE_EXTRA,
          "premise", "hypothesis", "group")  # fmt: skip
# The names of each field as ``_bare`` has them, the best first; those before the bar tell a kind without a doubt.
NAMES = {
    "query": "query | anchor question queries q querytext searchquery prompt instruction",
    "positive": "positive | pos positives positivepassages positivepassage positivedoc positivetext passage context "
    "document doc passagetext chunk chosen answer response answers output completion",
    "negative": "negative neg negatives negativepassages negativepassage negativedoc negativetext hardnegative "
    "hardnegatives rejected rejectedresponse",
    "sentence1": "sentence1 | sentencea senta sent1 text1 texta question1",
    "sentence2": "sentence2 | sentenceb sentb sent2 text2 textb question2",
    "score": "score label | similarity similarityscore relatednessscore isduplicate",
    "text": "text | sentence utterance content",
    "label": "labeltext labelname label | category intent class topic",
    "passage": "passage positive | passages document doc documents passagetext context text chunk answer",
    "grade": "relevance relevant isrelevant isselected label labels grade rel score scores rating",
    "pos": "pos",
    "group": "group groupid docid documentid",
}
_NUMBERED_NEGATIVE = re.compile(r"(?:hard)?neg(?:ative)?s?(\d+)")
_SNLI = {"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"}
# Columns that hold no text to train on, cells that are no names of columns, and grades.
_NO_TEXT = re.compile(r".*id|index|unnamed.*|url|date|lang|language|split|source|.*score")
_CELL = re.compile(r"(?s).{41,}|(?:\S+\s+){4,}\S+|.*[.?!]|[\d.,]+")
_GRADE = re.compile(r"-?\d(?:[.,]\d+)?")
# The columns of qrels, or the first row of them: query, [0,] passage, grade.
_QRELS = re.compile(r"query.?id corpus.?id score|\S*\d\S*\s+(?:Q?0\s+)?\S*\d\S*\s+-?\d", re.IGNORECASE)
_EXPECTED = 'write {"query", "positive"} or one of the README\'s other formats'
SOME = 12  # columns that a message names


@dataclass(frozen=True)
class Layout:
    """How rows with certain columns are read. ``fields``: the column of each field."""

    kind: str
    fields: Mapping[str, str]
    negatives: tuple[str, ...] = ()  # the columns with negatives
    unused: tuple[str, ...] = ()
    note: str = ""  # what was decided for the user
    # what makes plain fields of a row that nests them, and where it finds each column that it asks for
    unnest: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    names: Mapping[str, str] = field(default_factory=dict)


class UnknownColumns(BadRow):
    """Columns of no known format. The fix may be a command with the file's name, so ``at`` makes it."""

    def __init__(self, columns: Collection[str]) -> None:
        super().__init__(f"the columns {_some(columns)} are no known format", _EXPECTED, code="columns")
        self._columns = tuple(columns)
        texts = [name for name in columns if len(name) <= SHOWN and "," not in name]
        texts = [name for name in texts if not _NO_TEXT.fullmatch(_bare(name))]
        label = _find("label", texts)
        if len(columns) == 1:
            self.what = f"there is only the column {_some(columns)}, and one text alone trains nothing"
            self.fix = "give each row two texts (query and positive), or a text and its label"
        elif 2 <= len(texts) <= SOME:
            query = _find("query", texts) or texts[0]
            left = [name for name in texts if name != query]
            option = f"query={query},positive={_find('positive', left) or left[0]}"
            if label and len(texts) == 2:
                option = ",".join(f"{'label' if name == label else 'text'}={name}" for name in texts)
            self.fix = f"say which column is which, such as --columns {shlex.quote(option)}"

    def at(self, path: Path, line: int, severity: str = ERROR) -> Problem:
        if _QRELS.fullmatch(" ".join(self._columns)[:200]):
            folder, name = shlex.quote(str(path.parent / "qrels")), shlex.quote(str(path))
            self.what = "these are qrels (ids of queries and passages, with grades), and the texts are missing"
            self.fix = (
                "put corpus.jsonl and queries.jsonl beside the file and name their folder, once this is done: "
                f"mkdir -p {folder} && mv {name} {folder}/train.tsv"
            )
        elif data_kind(path) in ("csv", "tsv") and any(map(_CELL.fullmatch, self._columns)):
            self.what += "; it seems that the file has no header line"
            if len(self._columns) in (2, 3):
                self.fix = f"add one: {_header_command(self._columns, path)}"
        return super().at(path, line, severity)


def recognise(columns: Collection[str], renames: Mapping[str, str], expected: str | None) -> Layout:
    """The layout of rows with these columns. ``renames`` gives the column for a field; ``expected`` is the kind of the
    rows before. Raises ``BadRow`` where the columns are no format, or more than one."""
    if set(_SNLI.values()) <= set(columns):
        renames = _SNLI | dict(renames)
    chosen = {name: column for name, column in renames.items() if column in columns}
    names = {name: name for name in columns if name not in chosen.values()} | chosen
    for needed, kind, note, unnest in _FORMS:
        if needed <= names.keys() and (needed != {"set"} or len(names) == 1):
            unused = tuple(sorted(names[name] for name in names.keys() - needed - _MAY_BE_NESTED))
            fields = {name: name for name in COLUMNS[kind]}
            layout = Layout(kind, fields, ("negative",), unused, note, unnest, names)
            break
    else:
        layout = _plain([*columns], names, chosen, expected)
    if expected and layout.kind != expected:
        what = f"this row is {layout.kind}, the rows before it are {expected}"
        raise BadRow(what, "put each format in its own file", code="mixed-formats")
    return layout


def is_header(cells: Iterable[str]) -> bool:
    """Whether a table's first row names columns: one is known, or the last is a grade, as in qrels."""
    *_, last = cells = [*cells]
    known = {*FIELDS, *" ".join(NAMES.values()).replace("|", "").split()}
    return not known.isdisjoint(map(_bare, cells)) or bool(_GRADE.fullmatch(last))


def _plain(columns: list[str], names: Mapping[str, str], chosen: dict[str, str], expected: str | None) -> Layout:
    """The layout of rows whose fields are columns. ``names``: the column of each name."""
    if "positive" in chosen:  # it may turn out to be wrong, by its grade
        chosen = {"passage": chosen["positive"]} | chosen
    numbers = {name: int(number[1]) for name in columns if (number := _NUMBERED_NEGATIVE.fullmatch(_bare(name)))}
    negatives = [names[name] for name in ("negative", "neg") if name in names]
    negatives += [name for name in names if _bare(name) in NAMES["negative"].split() and name not in negatives]
    negatives += sorted(numbers, key=numbers.__getitem__)
    found = {kind: fields for kind in COLUMNS if (fields := _fields(kind, columns, chosen))}
    if negatives or expected == "retrieval":  # otherwise its grade says whether a passage is one
        found.pop("graded", None)
    exact = [kind for kind, fields in found.items() if fields == _fields(kind, columns, chosen, exact=True)]
    if "graded" in exact and "retrieval" in exact:
        exact.remove("retrieval")
    if expected and (not found or (expected == "graded" and "graded" not in found)):
        lacking = [name for name in COLUMNS[expected] if name not in names and not _find(name, columns)]
        if 0 < len(lacking) < len(COLUMNS[expected]):
            what = " and no ".join(f'"{name}"' for name in lacking)
            raise BadRow(f"no {what} in this row", "add it or delete the row", code="missing")
    if not found:
        raise UnknownColumns(columns)
    if len(exact) > 1:
        what = f"the columns {_some(columns)} are more than one format ({' and '.join(exact)})"
        raise BadRow(what, "leave only those of one, in each file", code="columns")
    kind = [*exact, *found][0]
    fields = found[kind]
    if kind == "native":
        fields |= {name: names[name] for name in NATIVE_EXTRA if name in names}
    if group := chosen.get("group") or _find("group", columns):
        fields["group"] = group
    negatives = negatives if kind in ("retrieval", "native") else []
    notes = [f"{name} is {column}" for name, column in fields.items() if name not in (column, "group")]
    notes += [f"negative is {name}" for name in negatives if "neg" not in _bare(name)]
    unused = set(columns) - {*fields.values(), *negatives, *(["label"] if kind == "labelled" else [])}
    return Layout(kind, fields, tuple(negatives), tuple(sorted(unused)), ", ".join(notes))


def _fields(kind: str, columns: list[str], chosen: Mapping[str, str], exact: bool = False) -> dict[str, str]:
    """The columns of the fields of a kind; empty where one is not there."""
    found: dict[str, str] = {}
    for name in COLUMNS[kind]:
        left = [column for column in columns if column not in (*found.values(), *chosen.values())]
        column = chosen.get(name) or _find(name, left, exact)
        if column is None:
            return {}
        found[name] = column
    return found


def _find(name: str, columns: list[str], exact: bool = False) -> str | None:
    names = NAMES[name].partition("|")[0] if exact else NAMES[name].replace("|", "")
    bare = {_bare(column): column for column in reversed(columns)}
    return next((bare[other] for other in names.split() if other in bare), None)


def _bare(name: str) -> str:
    """A column's name without case, spaces, underscores and hyphens."""
    return re.sub(r"[\s_-]", "", name).casefold()


def _some(columns: Collection[str]) -> str:
    """The columns as a message names them: where there is no header line they are somebody's texts."""
    more = ", …" if len(columns) > SOME else ""
    return ", ".join(repr(shown(name)) for name in [*columns][:SOME]) + more


@cache  # as many rows may need it as the file has
def _header_command(cells: tuple[str, ...], path: Path) -> str:
    """The command that puts a header line before the rows of a table."""
    names = ["query", "positive", "negative"]
    if _GRADE.fullmatch(cells[-1]):
        names = ["text", "label"] if len(cells) == 2 else ["sentence1", "sentence2", "score"]
    with path.open("rb") as file:
        first = file.readline()
    delimiter = "\t" if data_kind(path) == "tsv" else max(",;\t", key=first.decode("utf-8", "replace").count)
    header = delimiter.join(names[: len(cells)]).replace("\t", r"\t")
    bom = r"1s/^\xEF\xBB\xBF//;" if first.startswith(b"\xef\xbb\xbf") else ""
    return f"sed -i '{bom}1i {header}' {shlex.quote(str(path))}"


def _set(record: Mapping[str, Any]) -> dict[str, Any]:
    """FlagEmbedding's fields, or as in sentence-transformers' data files a query and positives."""
    inner = record["set"]
    if isinstance(inner, list):
        inner = {"query": inner[0], "pos": inner[1:]}
    return {"query": inner.get("query"), "positive": inner.get("pos"), "negative": inner.get("neg")}


def _messages(record: Mapping[str, Any]) -> dict[str, Any]:
    """The last message of each conversation is the text."""
    right, wrong = record["positive_messages"], record.get("negative_messages") or []
    query, *texts = [messages[-1]["content"] for messages in (record["messages"], *right, *wrong)]
    return {"query": query, "positive": texts[: len(right)], "negative": texts[len(right) :]}


def _dpr(record: Mapping[str, Any]) -> dict[str, Any]:
    negatives = [*(record.get("hard_negative_ctxs") or []), *(record.get("negative_ctxs") or [])]
    return {"query": record["question"], "positive": record["positive_ctxs"], "negative": negatives}


def _ms_marco(record: Mapping[str, Any]) -> dict[str, Any]:
    passages = record["passages"]
    if isinstance(passages, list):
        passages = {name: [one[name] for one in passages] for name in ("passage_text", "is_selected")}
    return {"query": record["query"], "passage": passages["passage_text"], "grade": passages["is_selected"]}


def _nli(record: Mapping[str, Any]) -> dict[str, Any]:
    score = NLI.get(str(record["label"]).casefold())
    if score is None:
        what = f"{shown(str(record['label']))} is no class of NLI"
        raise BadRow(what, "write entailment, neutral or contradiction (0, 1, 2), or delete the row", code="nli-class")
    return {"sentence1": record["premise"], "sentence2": record["hypothesis"], "score": score}


NLI = {"entailment": 1.0, "neutral": 0.5, "contradiction": 0.0, "0": 1.0, "1": 0.5, "2": 0.0}
_NLI_NOTE = "classes of NLI: entailment (0) scores 1, neutral (1) 0.5, contradiction (2) 0"
# The columns that tell rows which nest their fields, the kind of these, a word on it, and what makes plain fields.
_FORMS: tuple[tuple[set[str], str, str, Callable[[Mapping[str, Any]], dict[str, Any]]], ...] = (
    ({"set"}, "retrieval", "", _set),
    ({"messages", "positive_messages"}, "retrieval", "ms-swift's messages", _messages),
    ({"question", "positive_ctxs"}, "retrieval", "DPR's contexts", _dpr),
    ({"query", "passages", "query_type"}, "graded", "MS MARCO's passages", _ms_marco),
    ({"premise", "hypothesis", "label"}, "sts", _NLI_NOTE, _nli),
)
_MAY_BE_NESTED = {"negative_messages", "negative_ctxs", "hard_negative_ctxs"}
