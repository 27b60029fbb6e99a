"""The cure that a message names, typed as it stands, makes the file right."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from data_helpers import call

from m3kit.errors import KitError
from m3kit.reading.sources import find_sources

PAIRS = [
    ("Wie groß ist Io?", "Io ist ein Mond"),
    ("Wo liegt Oslo?", "Oslo liegt in Norwegen"),
    ("Was ist 3?", "Eine Zahl"),
]
OPTION = re.compile(r"--(?:columns|sts_max_score|task)(?: '[^']*'| \S+)")
COMMAND = re.compile(r": ((?:iconv|sed|mkdir|cp) .*?)$", re.MULTILINE)


def rows(**columns: str) -> str:
    """JSON lines; ``columns``: the name of each column of PAIRS."""
    return "".join(json.dumps(dict(zip(columns.values(), pair, strict=True))) + "\n" for pair in PAIRS)


def table(delimiter: str, *more: str) -> str:
    return "".join(delimiter.join((*pair, *more)) + "\n" for pair in PAIRS)


def checked(path: Path, *options: str) -> tuple[str, dict]:
    """(what ``check`` prints, what it prints as JSON)."""
    return call("check", path, *options).stdout, json.loads(call("check", path, "--json", *options).stdout)


def labelled(named: tuple[str, str] = ("text", "label")) -> str:
    return "".join(json.dumps(dict(zip(named, (f"text {n}", "ab"[n % 2]), strict=True))) + "\n" for n in range(4))


def sts(**changed: object) -> str:
    return "".join(json.dumps({"sentence1": first, "sentence2": second} | changed) + "\n" for first, second in PAIRS)


def classes(*values: object, first: str = "sentence1", column: str = "label") -> str:
    """Pairs with classes of NLI."""
    names = (first, "sentence2", column)
    found = [dict(zip(names, (*pair, value), strict=True)) for pair, value in zip(PAIRS, values, strict=True)]
    return "".join(json.dumps(row) + "\n" for row in found)


@pytest.mark.parametrize(
    ("content", "option", "task"),
    [
        (rows(a="Title", b="Body"), "--columns query=Title,positive=Body", "retrieval"),
        (rows(a="Customer's wish", b="Our reply"), None, "retrieval"),
        (rows(a="Betreff der Frage", b="Lösung"), "--columns 'query=Betreff der Frage,positive=Lösung'", "retrieval"),
        (rows(a="Question", b="Body"), "--columns query=Question,positive=Body", "retrieval"),
        (rows(a="Body", b="Question"), "--columns query=Question,positive=Body", "retrieval"),
        (labelled(named=("headline", "topic")), "--columns text=headline,label=topic", "classification"),
        (rows(a="sentence1", b="sentence2"), "--columns query=sentence1,positive=sentence2", "retrieval"),
        (sts(score=4.5), "--sts_max_score 5", "sts"),
        (sts(label="4.5"), "--sts_max_score 5", "sts"),
        (classes(0, 1, 2), "--columns premise=sentence1,hypothesis=sentence2", "sts"),
        (classes("entailment", "neutral", "contradiction"), "--columns premise=sentence1,hypothesis=sentence2", "sts"),
        (
            classes("entailment", "neutral", "contradiction", first="Sentence 1", column="similarity"),
            "--columns 'premise=Sentence 1,hypothesis=sentence2,label=similarity'",
            "sts",
        ),
        (labelled(), "--task classification", "classification"),
    ],
)
def test_an_option_makes_the_file_right(tmp_path, content, option, task):
    file = tmp_path / "it's data" / "rows.jsonl"
    file.parent.mkdir()
    file.write_text(content, encoding="utf-8")
    options, first = [], option or r"(?m)--columns .*$"
    said, found = checked(file)
    assert found["errors"]
    while found["errors"] and len(options) < 4:  # one cure after the other
        typed = re.search(first, said) if not options else OPTION.search(said)
        options += shlex.split(typed[0])
        said, found = checked(file, *options)
    assert found["errors"] == 0
    assert (found["sets"][0]["task"], found["sets"][0]["rows_used"]) == (task, content.count("\n"))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("rows.csv", b"query;positive\r\n" + table(";").replace("\n", "\r\n").encode("cp1252"), "retrieval"),
        ("rows.jsonl", b"".join(b'{"query": "%s", "positive": "%s"}\n' % (
            q.encode("cp1252"), p.encode()) for q, p in PAIRS), "retrieval"),
        ("rows.csv", table(",").encode(), "retrieval"),
        ("rows.csv", b"\xef\xbb\xbf" + table(";").replace("\n", "\r\n").encode(), "retrieval"),
        ("rows.tsv", table("\t").encode(), "retrieval"),
        ("rows.tsv", table("\t", "0.9").encode(), "sts"),
        ("rows.csv", table(",", "a wrong passage").encode(), "retrieval"),
    ],
)  # fmt: skip
def test_a_command_makes_the_file_right(tmp_path, name, content, expected):
    file = tmp_path / "it's data" / name
    file.parent.mkdir()
    file.write_bytes(content)
    said, before = checked(file)
    assert before["errors"]
    run(COMMAND.search(said)[1])
    _, after = checked(file)
    assert after["errors"] == 0
    assert (after["sets"][0]["task"], after["sets"][0]["rows_used"]) == (expected, 3)


def run(command: str) -> None:
    subprocess.run(command, shell=True, check=True, capture_output=True)


def beir(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, texts in zip(("queries", "corpus"), zip(*PAIRS, strict=True), strict=True):
        lines = [json.dumps({"_id": f"{name[0]}{n}", "text": text}) + "\n" for n, text in enumerate(texts)]
        (folder / f"{name}.jsonl").write_text("".join(lines))


@pytest.mark.parametrize(
    "qrels",
    ["query-id\tcorpus-id\tscore\nq0\tc0\t1\nq1\tc1\t1\n", "q0 0 c0 1\nq1 0 c1 1\n", "q0\t0\tc0\t1\nq1\t0\tc1\t2\n",
     "q0\tc0\t1\nq1\tc1\t1\n"],
)  # fmt: skip
def test_qrels_become_a_folder_to_train_on(tmp_path, qrels):
    file = tmp_path / "it's data" / "train.tsv"
    beir(file.parent)
    file.write_text(qrels)
    said, _ = checked(file)
    assert "these are qrels" in said
    run(COMMAND.search(said)[1])
    _, after = checked(file.parent)
    assert (after["errors"], after["sets"][0]["rows_used"]) == (0, 2)


def test_qrels_to_test_with_may_be_trained_on(tmp_path):
    folder = tmp_path / "it's data"
    beir(folder)
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("q0\tc0\t1\n")
    with pytest.raises(KitError, match="only data to test with") as error:
        find_sources([folder])
    run(re.search(r"cp .*", str(error.value))[0])
    assert [source.split for source in find_sources([folder])] == ["train", "test"]


def test_a_column_of_texts_is_told_to_train_nothing(tmp_path):
    for name, content in (
        ("rows.tsv", "who is Io, the moon?\nwhere is Oslo?\n"),
        ("rows.jsonl", '{"text": "a"}\n' * 2),
    ):
        (tmp_path / name).write_text(content)
        said, _ = checked(tmp_path / name)
        assert ("one text alone trains nothing" in said and "give each row two texts" in said) or "it seems" in said


def test_bare_numbers_as_labels_are_given_names(tmp_path):
    file = tmp_path / "classification-no_in_batch_neg" / "train.jsonl"
    file.parent.mkdir()
    rows = [{"text": f"text number {'abcdef'[n]}", "label": n % 2} for n in range(6)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said, _ = checked(file)
    target, content = re.search(r"into (\S+labels.json): (\{.*\})", said).groups()
    Path(target).write_text(content.replace('"…"', '"a name"', 1).replace('"…"', '"another"'))
    assert "bare numbers" not in checked(file)[0]
