"""Every malformed file gives a named problem with the right line, or trains to the letter; and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import KIT, read_jsonl
from data_helpers import call, check_counts, inspect
from malformed import CASES
from malformed_case import Case

from m3kit.data.prepare import prepare
from m3kit.data.settings import Settings
from m3kit.errors import KitError
from m3kit.reading.sources import find_files

PROBLEM = re.compile(r"(?:(labels\.json:))?(\d+) (.*)")


@pytest.fixture(
    params=[pytest.param(case, id=case.name, marks=[pytest.mark.slow] if n % 3 else []) for n, case in enumerate(CASES)]
)
def case(request) -> Case:
    return request.param


def told(file: Path, problems: list[dict], *severities: str) -> list[str]:
    """Problems as a case names them."""
    for problem in problems:
        assert problem["what"] and problem["fix"]
        assert len(problem["what"]) < 2000, "a message is no place for a user's megabytes"
    found = [problem for problem in problems if problem["severity"] in severities]
    names = ["labels.json:" if Path(problem["file"]).name == "labels.json" else "" for problem in found]
    return sorted(f"{name}{problem['line']} {problem['code']}" for name, problem in zip(names, found, strict=True))


def state(root: Path) -> dict[str, object]:
    """All that can be seen of the files in a folder."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(status.st_mode) else None
        found[os.fsencode(path)] = (content, status.st_mtime_ns, status.st_mode)
    return found


def run(case: Case, root: Path, **settings) -> tuple[list[dict], list[dict], dict]:
    """(prepared rows, rows set aside, entry of the manifest) of preparing the case's one file."""
    output = root.parent / "prepared"
    prepare([root], output, Settings(**case.settings | settings))
    (entry,) = json.loads((output / "manifest.json").read_text())["sets"]
    check_counts(entry)
    rejected = read_jsonl(output / "rejected.jsonl") if (output / "rejected.jsonl").exists() else []
    assert len(rejected) == sum(entry["rows_set_aside"].values())
    return read_jsonl(output / entry["output"]), rejected, entry


def check_trained(case: Case, rows: list[dict], rejected: list[dict]) -> None:
    assert [row["query"] for row in rows] == [query for query, _ in case.trains]
    for row, (_, positives) in zip(rows, case.trains, strict=True):
        assert positives is None or row["pos"] == positives
        assert all(isinstance(text, str) and text for text in row["pos"] + row["neg"]) and row["neg"]
    as_given = [row["row"] if isinstance(given, str) else json.loads(row["row"]) for row, given in zip(
        rejected, case.rejected, strict=False)]  # fmt: skip
    assert Counter(map(repr, as_given)) == Counter(map(repr, case.rejected))
    assert all(row["reason"] and row["line"] for row in rejected)


def test_a_malformed_file_is_named_or_trains(case, tmp_path, capsys):
    root = tmp_path / "data"
    case.write(root)
    before = state(root)
    stops = bool(case.errors or case.late)

    # what `check` says
    if case.refused:
        with pytest.raises(KitError, match=case.refused):
            inspect(*find_files([root]), **case.settings)
    else:
        (file,) = find_files([root])
        sets, problems = inspect(file, **case.settings)
        assert told(file, problems, "error") == sorted(case.errors)
        assert told(file, problems, "warning") == sorted(case.warnings)
        assert case.note in " ".join(note for data in sets for note in data.notes)

    # what `prepare` does
    output = tmp_path / "prepared"
    if case.refused or stops:
        with pytest.raises(KitError) as error:
            prepare([root], output, Settings(**case.settings))
        assert not output.exists()
        assert len(str(error.value)) < 20_000
        if not case.refused:
            # One message a kind, with the first line of that kind.
            first = {code: line for line, code in map(str.split, reversed(case.errors or case.late))}
            for line in first.values():
                named = f"{file.parent / line}: " if line.startswith("labels") else f"{file}:{line}: "
                assert named in str(error.value) or "… and " in str(error.value)
    else:
        rows, rejected, _ = run(case, root)
        check_trained(case, rows, rejected)

    # without the bad rows
    if stops and case.trains is None:
        with pytest.raises(KitError):
            prepare([root], output, Settings(**case.settings, skip_bad_rows=True))
        assert not output.exists()
    elif stops:
        rows, rejected, _ = run(case, root, skip_bad_rows=True)
        check_trained(case, rows, rejected)

    # where warnings are errors
    if case.warnings:
        with pytest.raises(KitError):
            prepare([root], output, Settings(**case.settings, strict=True))

    assert state(root) == before
    assert "Traceback" not in capsys.readouterr().err


def test_there_are_enough_of_them():
    assert len(CASES) >= 170


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_bytes(b"{}\n")
    real = Path.open

    def refuse(self, *args, **options):
        if self.name == "rows.jsonl":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, who may read all
    _, problems = inspect(tmp_path / "rows.jsonl")
    assert told(tmp_path / "rows.jsonl", problems, "error") == ["1 unreadable"]
    with pytest.raises(KitError, match=r"rows\.jsonl:1: the file cannot be read \(Permission denied\)"):
        prepare([tmp_path / "rows.jsonl"], tmp_path / "prepared", Settings())


# The real command line


def command(*arguments: str | Path) -> subprocess.CompletedProcess:
    argv = [sys.executable, "-m", "m3kit", *arguments]
    env = {"PYTHONPATH": str(KIT), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, capture_output=True, cwd=KIT, env=env, timeout=100, check=False)
    assert b"Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory) -> tuple[Path, dict[Path, Case]]:
    """All malformed files in one folder, each in a folder of its own, and the case of each."""
    root = tmp_path_factory.mktemp("all")
    cases = {}
    for number, case in enumerate(CASES):
        folder, _, name = case.file.rpartition("/")
        if folder and not case.refused and not case.settings:
            placed = Case(**vars(case) | {"file": f"{folder}-{number}/{name}"})
            cases[placed.write(root)] = case
    return root, cases


def late_of_sets(case: Case) -> list[str]:
    """What is told once a set is looked at as a whole. That a row has no negative is told only where there is no other
    error, for then the rows are converted."""
    return [problem for problem in case.late if not problem.endswith("no-negative")]


@pytest.mark.slow
def test_check_of_all_at_once(whole_folder):
    root, cases = whole_folder
    done = command("check", root, "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    expected = {file: sorted([*case.errors, *late_of_sets(case)]) for file, case in cases.items()}
    by_file: dict[Path, list[dict]] = {file: [] for file in cases}
    for problem in found["problems"]:
        path = Path(problem["file"])
        if path.name == "labels.json":
            (path,) = (file for file in cases if file.parent == path.parent)
        by_file[path].append(problem)
    for file, case in cases.items():
        assert told(file, by_file[file], "error") == expected[file], case.name
        assert told(file, by_file[file], "warning") == sorted(case.warnings), case.name
    assert found["errors"] == sum(map(len, expected.values()))
    plain = command("check", root)
    assert plain.returncode == 1
    assert re.search(rf"^found: {found['errors']} errors, ", plain.stdout.decode(), re.MULTILINE)
    assert len(plain.stdout) < 500_000


@pytest.mark.slow
def test_prepare_of_all_at_once(whole_folder, tmp_path):
    root, _cases = whole_folder
    for skip in ([], ["--skip-bad-rows"]):
        done = command("prepare", "--train_data", root, "--output_dir", tmp_path / "prepared", *skip)
        assert (done.returncode, done.stdout) == (1, b"")
        assert b" problems in the training data, nothing was prepared:" in done.stderr
        assert not (tmp_path / "prepared").exists()


def placed(name: str, tmp_path: Path) -> Path:
    (case,) = (case for case in CASES if case.name == name)
    return case.write(tmp_path)


@pytest.mark.parametrize(
    ("name", "arguments", "status"),
    [
        ("a byte order mark at the start", [], 0),
        ("retrieval, query null", [], 1),
        ("retrieval, query null", ["--skip-bad-rows"], 0),
        ("retrieval, a bell", [], 0),
        ("retrieval, a bell", ["--strict"], 1),
        ("retrieval, a bell", ["--strict", "--skip-bad-rows"], 0),
        ("a text and a label in any folder", [], 1),
        ("a text and a label in any folder", ["--task", "clustering"], 0),
        ("a pipe", [], 1),
        ("a name with a line end and a tab", [], 0),
        ("labels.json nested deep", [], 1),
        ("all scores in the middle", [], 0),
        ("no negative anywhere", [], 1),
        ("no negative anywhere", ["--skip-bad-rows"], 1),
        ("native rows of two types", [], 1),
        ("half a surrogate pair in a name that stands twice", [], 1),
    ],
)
def test_check_on_the_command_line(name, arguments, status, tmp_path):
    name = name if any(case.name == name for case in CASES) else f"a line with {name}"
    file = placed(name, tmp_path)
    for more in ([], ["--json"]):
        done = call("check", file, *arguments, *more)
        assert (done.returncode, done.stderr) == (status, "")
        if more:
            found = json.loads(done.stdout)
            assert (found["errors"] > 0) == (status == 1)
            assert found["errors"] == sum(problem["severity"] == "error" for problem in found["problems"])
        else:
            assert ("found:" in done.stdout) and (f"error: {file.parent}" in done.stdout) == (status == 1)


def test_check_refuses_a_name_that_is_not_utf_8(tmp_path):
    done = command("check", placed("a name that is not UTF-8", tmp_path))
    assert done.returncode == 1
    assert b"is not UTF-8; rename the file" in done.stderr


@pytest.mark.parametrize("name", ["a" * 300, "a/" * 3000, "a\udce9"])
def test_a_path_that_can_be_none_is_refused(name):
    done = call("check", name)
    assert done.returncode == 1
    assert re.match("m3kit check: (cannot look at|no such file)", done.stderr)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_a_terminal_of_any_encoding_will_do(encoding, tmp_path):
    file = tmp_path / "行.jsonl"
    file.write_text('{"text": "文字", "label": "文"}\n{"text": "b", "label": "c"}\n', "utf-8")
    done = call("check", file, "--task", "classification", encoding=encoding)
    assert (done.returncode, "found: 2 warnings" in done.stdout) == (0, True)
    done = call("check", file, "--task", "classification", "--json", encoding=encoding)
    assert json.loads(done.stdout)["problems"][0]["what"] == "label '文' has this row only"
    words = ["--train_data", file, "--task", "classification", "--output_dir", tmp_path / "文"]
    assert call("prepare", *words, encoding=encoding).returncode == 0
