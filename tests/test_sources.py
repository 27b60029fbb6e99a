"""Which files are read, told by their names; each once, and none left out without a word."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from m3kit.data.sources import data_kind, data_stem, find_files
from m3kit.errors import KitError


def make(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return paths


@pytest.mark.parametrize("packed", ["", ".gz", ".zst", ".GZ"])
@pytest.mark.parametrize("kind", ["jsonl", "ndjson", "json", "csv", "tsv", "parquet", "JSONL"])
def test_data_files_are_known_by_their_names(tmp_path, kind, packed):
    (file,) = make(tmp_path, f"my.train.{kind}{packed}")
    assert find_files([tmp_path]) == [file]
    assert data_kind(file) == kind.lower()
    assert data_stem(file) == "my.train"


@pytest.mark.parametrize(
    ("name", "stem"), [("notes.txt", "notes"), (".jsonl", ".jsonl"), ("train.tar.gz", "train.tar")]
)
def test_a_name_may_say_nothing_of_what_the_file_holds(name, stem):
    assert (data_kind(Path(name)), data_stem(Path(name))) == ("", stem)


def test_a_folder_gives_its_files_then_those_of_its_subfolders_in_order(tmp_path):
    names = ["b.jsonl", "c.csv", "a/y.parquet", "a/z.jsonl.gz", "sts/x.json"]
    files = make(tmp_path, *names)
    make(tmp_path, "eval/corpus.jsonl", "a/eval/queries.jsonl", ".git/x.jsonl", ".x.jsonl", "a/.y.csv")
    assert find_files([tmp_path]) == files


def test_files_beside_the_data_are_no_data_and_not_spoken_of(tmp_path, capsys):
    (file, *_) = make(tmp_path, "a/train.jsonl", "a/labels.json", "rejected.jsonl")
    assert find_files([tmp_path]) == [file]
    assert capsys.readouterr().err == ""


def test_what_is_not_read_is_told(tmp_path, capsys):
    make(tmp_path, "train.jsonl", "README.md", "a/old.xlsx", "a/b/deep.jsonl")
    find_files([tmp_path])
    told = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in told] == [
        f"not read: {tmp_path / name}" for name in ("README.md", "a/old.xlsx", "a/b")
    ]


def test_a_file_that_is_named_is_taken_whatever_its_name(tmp_path):
    files = make(tmp_path, "rows.txt", ".hidden.jsonl", "eval/train.jsonl")
    assert find_files(files) == files


def test_a_named_file_that_is_never_data_is_told_and_left_out(tmp_path, capsys):
    file, labels, rejected = make(tmp_path, "train.jsonl", "labels.json", "rejected.jsonl")
    assert find_files([file, labels, rejected]) == [file]
    told = capsys.readouterr().err
    assert f"not read: {labels}" in told and f"not read: {rejected}" in told
    with pytest.raises(KitError, match="none of the given paths is training data"):
        find_files([labels])


def test_no_file_comes_twice(tmp_path, capsys, monkeypatch):
    (file,) = make(tmp_path, "a/train.jsonl")
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "a" / ".." / "a" / "train.jsonl"
    assert find_files([tmp_path, file, tmp_path / "a"]) == [file]
    assert capsys.readouterr().err == ""
    assert find_files([Path("a/train.jsonl"), file, other]) == [Path("a/train.jsonl")]
    assert f"not read: {file} (the same file as a/train.jsonl)" in capsys.readouterr().err


def test_a_link_to_a_file_is_that_file(tmp_path, capsys):
    (file,) = make(tmp_path, "a/train.jsonl")
    link = tmp_path / "b.jsonl"
    link.symlink_to(file)
    assert find_files([tmp_path]) == [link]
    assert f"not read: {file} (the same file as {link})" in capsys.readouterr().err


def test_what_is_named_like_data_but_cannot_be_read_is_left_to_its_reader(tmp_path):
    (tmp_path / "dead.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert [path.name for path in find_files([tmp_path])] == ["dead.jsonl", "loop.jsonl", "pipe.jsonl"]


def test_a_missing_path_and_a_folder_without_data_are_named(tmp_path):
    with pytest.raises(KitError, match="no such file or folder: '.*missing'"):
        find_files([tmp_path / "missing"])
    make(tmp_path, "notes.txt", "eval/corpus.jsonl")
    with pytest.raises(KitError, match="no data file in .*jsonl .*parquet"):
        find_files([tmp_path])
