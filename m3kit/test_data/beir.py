"""Read test data in BEIR form: corpus.jsonl, queries.jsonl and qrels/test.tsv. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from m3kit.errors import KitError
from m3kit.reading.files import content_of
from m3kit.reading.problems import BadRow, Problem, refuse
from m3kit.reading.sources import how_to_convert
from m3kit.reading.text import is_blank
from m3kit.test_data.rows import read_objects, string

HEADER = ["query-id", "corpus-id", "score"]
FILES = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")
# trec_eval counts up to the highest grade.
MOST_GRADE = 1_000_000
LAYOUT = "corpus.jsonl, queries.jsonl and qrels/test.tsv"


@dataclass(frozen=True)
class EvalData:
    """What is asked, what is searched, and what should be found.

    ``passages`` and ``queries`` map an id to its text; ``qrels`` maps a query id to {passage id: grade}, where a grade
    of 1 or more is relevant. Every query in ``queries`` has at least one relevant passage.
    """

    folder: Path
    passages: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    queries_left_out: int

    @property
    def relevant_pairs(self) -> int:
        return sum(grade >= 1 for grades in self.qrels.values() for grade in grades.values())


def read_eval_data(folder: Path, option: str = "--eval_data") -> EvalData:
    """Read and check the BEIR folder of an option. Raises ``KitError`` that names each file and line with its fix."""
    corpus_file, queries_file, qrels_file = _files(folder, option)
    problems: list[Problem] = []
    passages = _read_texts(corpus_file, passage_text, problems)
    queries = _read_texts(queries_file, _query_text, problems)
    # With broken texts nearly every line of the qrels would name something unknown: say what came first.
    refuse(problems, "the test data, nothing was evaluated")
    qrels = _read_qrels(qrels_file, queries, passages, problems)
    refuse(problems, "the test data, nothing was evaluated")

    answered = {query for query, grades in qrels.items() if any(grade >= 1 for grade in grades.values())}
    if not answered:
        raise KitError(
            f"{qrels_file}: no query has a relevant passage; give at least one line with a score of 1 or more"
        )
    return EvalData(
        folder,
        passages,
        {query: text for query, text in queries.items() if query in answered},
        {query: grades for query, grades in qrels.items() if query in answered},
        len(queries.keys() - answered),
    )


def check_folder(folder: Path, layout: str, option: str = "--eval_data") -> None:
    if not folder.is_dir():
        found = "is no folder" if folder.exists() else "does not exist"
        raise KitError(f"the test data {folder} {found}; give {option} a folder with {layout}")


def _files(folder: Path, option: str) -> list[Path]:
    check_folder(folder, LAYOUT, option)
    files = [folder / name for name in FILES]
    missing = [name for name, file in zip(FILES, files, strict=True) if not file.is_file()]
    if missing:
        raise KitError(f"the test data {folder} has no {' and no '.join(missing)}; it needs {LAYOUT}")
    return files


def _read_texts(file: Path, text_of: Callable[[dict], str], problems: list[Problem]) -> dict[str, str]:
    first_line: dict[str, int] = {}

    def parse(number: int, row: dict) -> tuple[str, str]:
        key = _id(row)
        if key in first_line:
            raise BadRow(f"_id {key!r} was already used on line {first_line[key]}", "give each row its own _id")
        first_line[key] = number
        return key, text_of(row)

    return dict(read_objects(file, parse, problems))


def _id(row: dict) -> str:
    key = row.get("_id")
    # A number is taken as its digits: in the qrels an id is text anyway.
    if isinstance(key, int) and not isinstance(key, bool):
        key = str(key)
    if not isinstance(key, str) or not key.strip():
        raise BadRow("has no _id", "give the row an _id, which the qrels name")
    # The qrels are separated by tabs, one pair a line, so such an id could never be named there.
    if any(character in key for character in "\t\r\n"):
        raise BadRow(f"_id {key!r} holds a tab or a line end", "use an _id without them")
    return key.strip()


def _query_text(row: dict) -> str:
    text = string(row, "text")
    if is_blank(text):
        raise BadRow("text is missing or empty", 'write the query under "text", or remove the row')
    return text


def passage_text(row: dict) -> str:
    """Title and text with a space between, as BEIR itself gives them to a model."""
    text = " ".join(part for part in (string(row, "title"), string(row, "text")) if part)
    if is_blank(text):
        raise BadRow("title and text are missing or empty", 'write the passage under "text", or remove the row')
    return text


def _read_qrels(file: Path, queries: dict, passages: dict, problems: list[Problem]) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    header = "start the file with the line query-id<TAB>corpus-id<TAB>score"
    content = b""
    try:
        content, damage = content_of(file, [])
        if damage:
            raise damage
        text = content.decode("utf-8")
    except BadRow as bad:
        problems.append(Problem(file, bad.line or 1, bad.what, header if bad.code == "empty" else bad.fix))
        return qrels
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        problems.append(Problem(file, number, "is not UTF-8", how_to_convert(file)))
        return qrels
    # str.splitlines would also cut at characters that may stand inside an id.
    found = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not found:
        problems.append(Problem(file, 1, "is empty", header))
        return qrels
    number, first = found[0]
    # BEIR's own reader skips the first line unseen, so that a file without a header loses a pair.
    if [field.strip() for field in first.split("\t")] != HEADER:
        problems.append(Problem(file, number, "is not the header", header))
        return qrels
    for number, line in found[1:]:
        try:
            query, passage, grade = _pair(line)
            if query not in queries:
                raise BadRow(f"names query {query!r}, which queries.jsonl lacks", "add the query or remove the line")
            if passage not in passages:
                raise BadRow(
                    f"names passage {passage!r}, which corpus.jsonl lacks", "add the passage or remove the line"
                )
            if qrels.setdefault(query, {}).setdefault(passage, grade) != grade:
                raise BadRow("scores a pair that an earlier line scored otherwise", "keep one of the two lines")
        except BadRow as bad:
            problems.append(Problem(file, number, bad.what, bad.fix))
    return qrels


def _pair(line: str) -> tuple[str, str, int]:
    fields = [field.strip() for field in line.split("\t")]
    if len(fields) != 3:
        raise BadRow(f"has {len(fields)} fields, not 3", "write query-id<TAB>corpus-id<TAB>score")
    try:
        grade = int(fields[2])
    except ValueError:
        raise BadRow(f"score {fields[2]!r} is no whole number", "write 1 for relevant and 0 for not relevant") from None
    if abs(grade) > MOST_GRADE:
        raise BadRow(f"score {grade} is too large for a grade", "write grades such as 0, 1, 2 and 3")
    return fields[0], fields[1], grade
