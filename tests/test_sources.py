"""Which files are read, told by their names; each once, and none left out without a word."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from m3kit.errors import KitError
from m3kit.reading.sources import data_kind, data_stem, find_files, find_sources


def make(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return paths


@pytest.mark.parametrize("packed", ["", ".gz", ".zst", ".GZ"])
@pytest.mark.parametrize("kind", ["jsonl", "ndjson", "json", "csv", "tsv", "parquet", "arrow", "xlsx", "JSONL"])
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
    make(tmp_path, "train.jsonl", "README.md", "a/old.xls", "a/b/deep.jsonl")
    find_files([tmp_path])
    told = capsys.readouterr().err.splitlines()
    assert sorted(line.split(" (")[0] for line in told) == [
        f"not read: {tmp_path / name}" for name in ("README.md", "a/b", "a/old.xls")
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


def splits(folder: Path) -> dict[str, str]:
    """What each file (BEIR folder) is taken for."""
    return {str(source.path.relative_to(folder)): source.split for source in find_sources([folder])}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("test.jsonl", "test"),
        ("Test.JSONL.gz", "test"),
        ("test-00000-of-00001.parquet", "test"),
        ("dev.csv", "dev"),
        ("my_dev.csv", "dev"),
        ("validation.json", "validation"),
        ("val_dataset.json", "val"),
        ("eval.jsonl", "eval"),
        ("evaluation_data.tsv", "evaluation"),
        ("a.valid.jsonl", "valid"),
        ("test/part-1.jsonl", "test"),
        ("train.jsonl", "train"),
        ("latest.jsonl", "train"),
        ("development.jsonl", "train"),
        ("test_questions_of_physics.jsonl", "train"),
        ("retrieval/dev/x.jsonl", None),
    ],
)
def test_files_to_test_with_are_known_by_their_names_and_their_folders(tmp_path, name, split):
    make(tmp_path, "data.jsonl", name)
    assert splits(tmp_path).get(name) == split
    assert name in map(str, (path.relative_to(tmp_path) for path in find_files([tmp_path]))) or split != "train"


def test_a_file_to_test_with_is_trained_on_where_it_is_named(tmp_path):
    (file,) = make(tmp_path, "test.jsonl")
    assert find_files([file]) == [file]
    with pytest.raises(KitError, match=r"only data to test with, by its name \(test\); name the file itself"):
        find_sources([tmp_path])


def test_folders_of_the_library_datasets_are_read_without_a_word(tmp_path, capsys):
    parts = ("train", "test")
    names = [f"{part}/{name}" for part in parts for name in ("data-00000-of-00001.arrow", "state.json")]
    make(tmp_path, *names, "dataset_dict.json", "train/dataset_info.json", "test/dataset_info.json")
    assert splits(tmp_path) == {f"{part}/data-00000-of-00001.arrow": part for part in parts}
    assert find_files([tmp_path / "test"]) == [tmp_path / "test" / "data-00000-of-00001.arrow"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("place", [".", "retrieval"])
def test_a_beir_folder_is_one_source_for_each_of_its_qrels(tmp_path, place):
    make(tmp_path / place, "corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/dev.tsv", "qrels/readme.txt")
    sources = find_sources([tmp_path])
    assert [(source.path, source.split) for source in sources] == [
        (tmp_path / place, "train"),
        (tmp_path / place, "dev"),
    ]


def test_the_output_of_an_earlier_run_is_no_data(tmp_path):
    (file, *_) = make(tmp_path, "a/rows.jsonl", "manifest.json", "problems.jsonl")
    assert find_files([tmp_path]) == [file]
    assert find_files([*make(tmp_path / "b", "manifest.json")]) == [tmp_path / "b" / "manifest.json"]
