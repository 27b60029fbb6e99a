"""Files whose rows are good one by one, and wrong together; columns, tasks, labels and their descriptions."""

from __future__ import annotations

from malformed_case import CLASSES, CLUSTERS, GOOD, Case, lines_of, trained

RETRIEVAL, STS, LABELLED = GOOD["retrieval"], GOOD["sts"], GOOD["labelled"]
ALL, PAIRS, TEXTS = trained("retrieval"), trained("sts"), trained("labelled")
ROW = RETRIEVAL[0]
# Twice the same pair, the other way round, with a score far away; a row with another label.
OTHER_SCORE = {"sentence1": STS[0]["sentence2"], "sentence2": STS[0]["sentence1"].upper(), "score": 0.1}
OTHER_LABEL = {"text": LABELLED[0]["text"].upper(), "label": "b_c"}


def retrieval(name: str, rows: list[dict], *errors: str, **more) -> Case:
    return Case(name, "retrieval/rows.jsonl", lines_of(rows), errors=errors, **more)


def sts(name: str, rows: list[dict], *errors: str, **more) -> Case:
    return Case(name, "sts/rows.jsonl", lines_of(rows), errors=errors, **more)


def labelled(name: str, rows: list[dict], *errors: str, folder: str = CLASSES, **more) -> Case:
    return Case(name, f"{folder}/rows.jsonl", lines_of(rows), errors=errors, **more)


def described(name: str, labels_json: bytes, *errors: str, **more) -> Case:
    return labelled(name, LABELLED, *errors, beside={"labels.json": labels_json}, **more)


def pairs(*scores: float) -> list[dict]:
    return [{"sentence1": f"one {i}", "sentence2": f"other {i}", "score": score} for i, score in enumerate(scores)]


def texts(*labels: str | int) -> list[dict]:
    return [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]


def queries(rows: list[dict]) -> list[tuple[str, None]]:
    return [(row["text"], None) for row in rows]


def native(**extra) -> dict:
    return {"query": "q", "pos": ["p"], "neg": ["n"], **extra}


def renamed(rows: list[dict], **names: str) -> list[dict]:
    return [{names.get(name, name): value for name, value in row.items()} for row in rows]


PASSAGES = [
    {
        "query_id": str(i),
        "query": row["query"],
        "positive_passages": [{"docid": "1", "title": "", "text": row["positive"]}],
        "negative_passages": [{"docid": "2", "title": None, "text": row["negative"]}],
    }
    for i, row in enumerate(RETRIEVAL)
]

SETS = [
    # columns
    retrieval("sentence-transformers' names", renamed(RETRIEVAL, query="anchor"), trains=ALL),
    retrieval(
        "a bad row under sentence-transformers' names",
        [*renamed(RETRIEVAL, query="anchor"), {"anchor": " ", "positive": "p"}],
        "6 empty",
        trains=ALL,
        rejected=({"anchor": " ", "positive": "p"},),
    ),
    retrieval("numbered negatives", renamed(RETRIEVAL, negative="negative_1"), trains=ALL),
    retrieval("MS MARCO's names", PASSAGES, trains=ALL),
    retrieval(
        "a bad row under MS MARCO's names",
        [*PASSAGES, {"query": "q", "positive_passages": [{"text": None}]}],
        "6 type",
        trains=ALL,
        rejected=({"query": "q", "positive_passages": [{"text": None}]},),
    ),
    sts("a label for a score", renamed(STS, score="label"), trains=PAIRS),
    sts("scores 0 to 5", pairs(5, 4.5, 0), "1 score-0-to-5", "2 score-0-to-5"),
    sts(
        "scores 0 to 5, and that is said",
        pairs(5, 4.5, 0),
        settings={"sts_max_score": 5.0},
        trains=trained("sts", pairs(5, 4.5, 0)),
    ),
    retrieval(
        "columns of another kit",
        renamed(RETRIEVAL, query="title", positive="body"),
        *(f"{n} columns" for n in range(1, 6)),
    ),
    retrieval(
        "columns of another kit, and that is said",
        renamed(RETRIEVAL, query="title", positive="body"),
        trains=ALL,
        settings={"columns": (("query", "title"), ("positive", "body"))},
    ),
    retrieval(
        "columns the wrong way round, and that is said",
        renamed(RETRIEVAL, query="positive", positive="query"),
        trains=ALL,
        settings={"columns": (("query", "positive"), ("positive", "query"))},
    ),
    retrieval(
        "a column that no file has",
        RETRIEVAL,
        settings={"columns": (("query", "question"),)},
        refused="no file has such a column",
    ),
    retrieval("columns of two formats", [{**row, "pos": ["p"]} for row in RETRIEVAL[:2]], "1 columns", "2 columns"),
    retrieval(
        "a text, a label and two sentences",
        [{"sentence1": "a", "sentence2": "b", "text": "c", "label": 1}],
        "1 columns",
    ),
    retrieval(
        "other rows after the first",
        [{"text": "a", "label": "b"}, *RETRIEVAL[:2]],
        "1 task",
        "2 mixed-formats",
        "3 mixed-formats",
    ),
    # rows of one query, and rows that stand twice
    retrieval("a row twice", [*RETRIEVAL, ROW], warnings=("6 row-twice",), trains=ALL),
    retrieval(
        "a row twice but for case and spaces",
        [*RETRIEVAL, {name: f" {text.upper()} " for name, text in RETRIEVAL[2].items()}],
        warnings=("6 row-twice",),
        trains=ALL,
    ),
    retrieval("no negative anywhere", [{"query": "q", "positive": "p"}], late=("1 no-negative",)),
    retrieval(
        "a row that no passage is left for",
        [ROW, {"query": "r", "positive": [ROW["positive"], ROW["negative"]]}],
        late=("2 no-negative",),
        trains=ALL[:1],
        rejected=({"query": "r", "positive": [ROW["positive"], ROW["negative"]]},),
    ),
    # scores
    sts("all scores in the middle", pairs(0.5, 0.6, 0.7), trains=trained("sts", pairs(0.5, 0.6, 0.7))),
    sts("low scores only", pairs(0, 0.1, 0.4), trains=trained("sts", pairs(0, 0.1, 0.4))),
    sts(
        "low scores only, as positives and negatives",
        pairs(0, 0.1, 0.4),
        late=("1 no-positive",),
        settings={"sts_as": "contrastive"},
    ),
    sts("one low score", pairs(0.3, 0.3), late=("1 no-positive",)),
    sts("one pair", pairs(1), late=("1 no-negative",)),
    sts(
        "scores that contradict",
        [*STS, OTHER_SCORE],
        "6 sts-contradiction",
        trains=PAIRS[1:],
        rejected=(STS[0], OTHER_SCORE),
    ),
    sts(
        "the same text with a low score",
        [*STS, {"sentence1": "a b", "sentence2": "A  b", "score": 0.1}],
        warnings=("6 sts-same-text",),
        trains=PAIRS,
        rejected=({"sentence1": "a b", "sentence2": "A  b", "score": 0.1},),
    ),
    sts("two opinions of one pair", [*STS, STS[2] | {"score": 0.9}], warnings=("6 row-twice",), trains=PAIRS),
    # labels
    labelled(
        "labels that contradict",
        [*LABELLED, OTHER_LABEL, LABELLED[0] | {"text": "more"}],
        "6 label-contradiction",
        trains=[*TEXTS[1:], ("more", ["a"])],
        rejected=(LABELLED[0], OTHER_LABEL),
    ),
    labelled(
        "nothing but contradictions",
        [*texts("a"), *texts("{b}")],
        "2 label-contradiction",
        warnings=("1 label-once", "2 label-once"),
        late=("1 one-label",),
    ),
    labelled("one label", texts("a", "a", "a"), late=("1 one-label",)),
    labelled(
        "every label once",
        texts("a", "b"),
        folder=CLUSTERS,
        warnings=("1 label-once", "2 label-once"),
        late=("1 label-once",),
    ),
    labelled(
        "a label once in a cluster",
        texts("a", "b", "a"),
        folder=CLUSTERS,
        warnings=("2 label-once",),
        trains=queries([texts("a")[0], texts("a", "a", "a")[2]]),
        rejected=(texts("a", "b")[1],),
    ),
    labelled(
        "labels that differ in case", texts("Ab", "ab", "Ab", "ab"), warnings=("2 label-spelling",), late=("1 labels",)
    ),
    labelled("labels that differ in underscores", texts("a_b", "a b", "a_b", "a b"), late=("1 labels",)),
    labelled(
        "clusters that differ in full width",
        texts("ａ", "a", "ａ", "a"),
        folder=CLUSTERS,
        warnings=("2 label-spelling",),
        trains=queries(texts("a", "a", "a", "a")),
    ),
    labelled(
        "labels that are numbers and texts",
        texts(1, "2", "1", 2),
        warnings=("1 label-numbers",),
        trains=[("text 0", ["1"]), ("text 1", ["2"]), ("text 2", ["1"]), ("text 3", ["2"])],
    ),
    labelled(
        "a label of underscores",
        texts("___", "b", "___", "b"),
        trains=[("text 0", ["___"]), ("text 1", ["b"]), ("text 2", ["___"]), ("text 3", ["b"])],
    ),
    labelled(
        "a label of a megabyte",
        texts("x" * 1_000_000, "b", "b"),
        warnings=("1 label-once",),
        trains=[("text 0", ["x" * 1_000_000]), ("text 1", ["b"]), ("text 2", ["b"])],
    ),
    labelled("a text and a label in any folder", LABELLED, "1 task", folder="mine"),
    labelled(
        "a text and a label in any folder, and that is said",
        LABELLED,
        folder="mine",
        settings={"task": "classification"},
        trains=TEXTS,
    ),
    # what the labels mean
    described(
        "a label that is described",
        b'\xef\xbb\xbf{"a":\n"the first"}',
        trains=[(text, ["the first"] if label == ["a"] else label) for text, label in TEXTS],
    ),
    described("a description of no label", b'{"A": "the first"}', trains=TEXTS, note="no row has, such as 'A'"),
    described("labels.json cut off", b'{"a": "b",\n"b_c": "d', "labels.json:2 labels"),
    described("labels.json empty", b"", "labels.json:1 labels"),
    described("labels.json a list", b'["a", "b_c"]', "labels.json:1 labels"),
    described("labels.json in UTF-16", '{"a": "b"}'.encode("utf-16"), "labels.json:1 labels"),
    described("labels.json in Latin-1", '{"a": "é"}'.encode("latin-1"), "labels.json:1 labels"),
    described("labels.json with a number", b'{"a": 1}', "labels.json:1 labels"),
    described("labels.json with null", b'{"a": null}', "labels.json:1 labels"),
    described("labels.json with an empty text", b'{"a": " "}', "labels.json:1 labels"),
    described("labels.json with an unseen text", '{"a": "\u200b"}'.encode(), "labels.json:1 labels"),
    described("labels.json with half a surrogate pair", b'{"a": "\\ud800"}', "labels.json:1 labels"),
    described("labels.json with a name twice", b'{"a": "b",\n"a": "c"}', "labels.json:1 labels"),
    described("labels.json nested deep", b'{"a": ' + b"[" * 100_000, "labels.json:1 labels"),
    described("labels.json with one text for two", b'{"a": "same", "b_c": "SAME"}', late=("1 labels",)),
    # FlagEmbedding's own rows
    retrieval(
        "native rows of two types",
        [native(type="retrieval"), native(query="r", type="symmetric_sts")],
        late=("2 types",),
    ),
    retrieval("native rows of a type and none", [native(), native(query="r", type="retrieval")], late=("2 types",)),
    retrieval(
        "native scores without a negative",
        [native(pos_scores=[1.5], neg_scores=[0.5]), native(query="r", neg=[], pos_scores=[1], neg_scores=[])],
        late=("2 no-negative",),
        trains=[("q", ["p"])],
        rejected=(native(query="r", neg=[], pos_scores=[1], neg_scores=[]),),
    ),
    retrieval(
        "a native row twice", [native(), native()], warnings=("2 row-twice",), trains=[("q", ["p"]), ("q", ["p"])]
    ),
]
