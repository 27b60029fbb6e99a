"""`m3kit prepare`: what is written, what is said, and that nothing is written when something is wrong."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import EXAMPLE_DATA, KIT, read_jsonl, write_jsonl
from data_helpers import PAIRS, call, check_counts
from terminal import terminal

from m3kit.data.prepare import prepare
from m3kit.data.settings import Settings
from m3kit.errors import KitError

LABELLED = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(6)]


def test_the_example_data_prepares_into_one_folder_a_task(tmp_path):
    done = call("prepare", "--train_data", EXAMPLE_DATA, "--output_dir", tmp_path / "prepared")
    assert done.returncode == 0, done.stderr
    folders = [Path(line) for line in done.stdout.split("\n") if line]
    assert [folder.name for folder in folders] == [
        "classification-no_in_batch_neg",
        "clustering-no_in_batch_neg",
        "retrieval",
        "sts",
    ]
    manifest = json.loads((tmp_path / "prepared" / "manifest.json").read_text())
    for entry in manifest["sets"]:
        assert len(read_jsonl(tmp_path / "prepared" / entry["output"])) == entry["rows_written"] > 0
        check_counts(entry)
        assert entry["input"] in done.stderr


def test_json_has_the_folders_and_the_manifest_s_counts(tmp_path):
    words = ("--train_data", EXAMPLE_DATA, "--output_dir", tmp_path / "prepared", "--holdout", 0.1)
    plain, done = (call("prepare", *words, *more) for more in ([], ["--json"]))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["folders"] == plain.stdout.split()
    manifest = json.loads(Path(found["manifest"]).read_text())
    assert {name: found[name] for name in manifest if name != "settings"} == {
        name: value for name, value in manifest.items() if name != "settings"
    }
    for entry in found["sets"]:
        check_counts(entry)
    assert (Path(found["eval_data"]) / "queries.jsonl").is_file()
    refused = call("prepare", "--train_data", tmp_path / "gone", "--output_dir", tmp_path / "no", "--json")
    assert (refused.returncode, refused.stdout) == (1, "") and refused.stderr


@pytest.mark.slow
def test_on_a_terminal_a_bar_tells_what_is_done_and_a_file_has_none(tmp_path, soon, capsys):
    rows = [{"query": f"query {i}", "positive": f"passage {i} " * 20} for i in range(1200)]
    write_jsonl(tmp_path / "retrieval" / "rows.jsonl", rows)
    with terminal() as shown:
        prepare([tmp_path / "retrieval"], tmp_path / "prepared", Settings(holdout=0.1))
        told = shown()
    for title in ("comparing the rows", "holding out"):
        assert f"\r{title}" in told
    assert "1,200 rows [" in told
    prepare([tmp_path / "retrieval"], tmp_path / "other", Settings(holdout=0.1))
    assert "rows [" not in capsys.readouterr().err


def test_labelled_rows_always_end_up_in_a_no_in_batch_neg_folder(tmp_path):
    """D4: the suffix of the folder is all by which FlagEmbedding knows."""
    write_jsonl(tmp_path / "clustering" / "mine.jsonl", LABELLED)
    folders = prepare([tmp_path / "clustering"], tmp_path / "prepared", Settings())
    assert [folder.name for folder in folders] == ["clustering-no_in_batch_neg"]


def test_labelled_rows_elsewhere_are_asked_about_not_guessed(tmp_path):
    write_jsonl(tmp_path / "mine" / "rows.jsonl", LABELLED)
    with pytest.raises(KitError, match="may be meant for classification or clustering"):
        prepare([tmp_path / "mine"], tmp_path / "prepared", Settings())


def test_labels_json_beside_the_file_describes_the_labels(tmp_path):
    folder = tmp_path / "classification-no_in_batch_neg"
    write_jsonl(folder / "train.jsonl", LABELLED)
    (folder / "labels.json").write_text('{"a": "the first kind"}')
    prepare([folder], tmp_path / "prepared", Settings())
    rows = read_jsonl(tmp_path / "prepared" / folder.name / "train.jsonl")
    assert rows[0]["pos"] == ["the first kind"]
    assert rows[0]["neg"] == ["b"]
    (folder / "labels.json").write_text('{"a": ""}')
    with pytest.raises(KitError, match=r"labels\.json"):
        prepare([folder], tmp_path / "prepared", Settings())


def test_every_problem_is_named_and_nothing_is_written(tmp_path):
    first = write_jsonl(tmp_path / "retrieval" / "a.jsonl", [*PAIRS, {"query": "q", "positive": []}])
    second = tmp_path / "retrieval" / "b.jsonl"
    second.write_text("no json\n")
    done = call("prepare", "--train_data", tmp_path / "retrieval", "--output_dir", tmp_path / "prepared")
    assert done.returncode == 1
    assert done.stdout == ""
    assert f'{first}:5: "positive" is an empty list' in done.stderr
    assert f"{second}:1: not valid JSON" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "prepared").exists()


def test_of_very_many_problems_the_first_are_shown_and_how_to_see_the_others(tmp_path):
    rows = write_jsonl(tmp_path / "retrieval" / "rows.jsonl", [{"query": "", "positive": "p"}] * 1000)
    with pytest.raises(KitError, match="1000 problems in the training data") as refused:
        prepare([rows], tmp_path / "prepared", Settings())
    lines = str(refused.value).split("\n")
    assert len(lines) == 3
    assert lines[1].endswith('"query" is empty (1000 such rows: 1, 2, 3, …); fill it in or delete the row')
    assert "python -m m3kit check --json" in lines[-1]


def test_a_problem_of_a_row_among_others_has_that_row_s_line(tmp_path):
    rows = [{"query": "q", "positive": "p", "negative": "n"}, {"query": "r", "positive": ["p", "n"]}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(KitError, match=r"rows\.jsonl:2: no negative here"):
        prepare([path], tmp_path / "prepared", Settings())


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_file_without_rows_is_named(tmp_path, content):
    (tmp_path / "empty.jsonl").write_text(content)
    with pytest.raises(KitError, match="the file is empty|holds no row"):
        prepare([tmp_path / "empty.jsonl"], tmp_path / "prepared", Settings())


def test_a_missing_path_and_a_folder_without_rows_are_named(tmp_path):
    with pytest.raises(KitError, match="no such file or folder"):
        prepare([tmp_path / "gone"], tmp_path / "prepared", Settings())
    with pytest.raises(KitError, match="no data file"):
        prepare([tmp_path], tmp_path / "prepared", Settings())


def test_files_of_one_name_do_not_overwrite_each_other(tmp_path):
    for name in ("one", "two"):
        write_jsonl(tmp_path / name / "retrieval" / "train.jsonl", PAIRS)
    inputs = [tmp_path / "one" / "retrieval", tmp_path / "two"]
    (folder,) = prepare(inputs, tmp_path / "prepared", Settings())
    assert sorted(path.name for path in folder.iterdir()) == ["train-2.jsonl", "train.jsonl"]


def test_paths_may_hold_any_character(tmp_path):
    folder = tmp_path / "with space, 'quotes' [brackets] and 文字" / "retrieval"
    write_jsonl(folder / "my [rows].jsonl", PAIRS)
    done = call("prepare", "--train_data", folder, "--output_dir", folder.parent / "prepared")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{folder.parent}/prepared/retrieval\n"


def test_a_folder_with_files_of_others_is_not_replaced(tmp_path):
    rows = write_jsonl(tmp_path / "retrieval" / "train.jsonl", PAIRS)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(KitError, match="did not write"):
        prepare([rows], tmp_path / "home", Settings())
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"


def test_what_is_not_read_is_said(tmp_path, capsys):
    rows = write_jsonl(tmp_path / "retrieval" / "train.jsonl", [*PAIRS[1:], {**PAIRS[0], "source": "wiki", "id": 1}])
    rows.with_name("more.doc").write_text("query,positive\n")
    prepare([rows.parent], tmp_path / "prepared", Settings())
    said = capsys.readouterr().err
    assert "not read: " in said
    assert "more.doc" in said
    assert "columns not used: id, source" in said


def test_the_data_room_imports_no_torch():
    code = "import sys, m3kit.data.prepare; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=KIT, check=True)
    assert done.stdout.strip() == "False"


def test_bad_rows_are_set_aside_where_that_was_asked_for(tmp_path):
    bad = ["no json", '{"query": "", "positive": "p"}', '{"query": "q", "positive": 5}', '{"query": "é"}']
    good = [json.dumps(row) for row in PAIRS]
    path = tmp_path / "retrieval" / "rows.jsonl"
    path.parent.mkdir()
    path.write_text("\n".join([bad[0], *good[:2], *bad[1:], *good[2:]]), encoding="utf-8")
    prepare([path], tmp_path / "prepared", Settings(skip_bad_rows=True))
    (entry,) = json.loads((tmp_path / "prepared" / "manifest.json").read_text())["sets"]
    assert (entry["rows_read"], entry["rows_used"]) == (8, 4)
    assert entry["rows_set_aside"] == {f"bad rows: {code}": 1 for code in ("json", "empty", "type", "missing")}
    rejected = read_jsonl(tmp_path / "prepared" / "rejected.jsonl")
    assert [(row["line"], row["row"]) for row in rejected] == list(zip((1, 4, 5, 6), bad, strict=True))
    assert [row["code"] for row in rejected] == ["json", "empty", "type", "missing"]
    assert all(row["reason"] and row["fix"] and row["file"] == str(path) for row in rejected)


def test_rows_that_teach_nothing_are_set_aside_with_the_reason(tmp_path):
    rows = [{"sentence1": f"a {i}", "sentence2": f"b {i}", "score": score} for i, score in enumerate([1, 0.6, 0.1])]
    write_jsonl(tmp_path / "sts" / "sts.jsonl", rows)
    prepare([tmp_path / "sts"], tmp_path / "prepared", Settings(sts_as="contrastive"))
    rejected = read_jsonl(tmp_path / "prepared" / "rejected.jsonl")
    assert [(row["line"], json.loads(row["row"])) for row in rejected] == [(2, rows[1]), (3, rows[2])]
    assert "between 0.4 and 0.8" in rejected[0]["reason"]


def test_a_query_s_positives_in_another_file_are_no_negatives(tmp_path):
    folder = tmp_path / "retrieval"
    write_jsonl(folder / "a.jsonl", [{"query": "q", "positive": "p"}, {"query": "r", "positive": "s"}])
    write_jsonl(folder / "b.jsonl", [{"query": "Q", "positive": ["s", "t"]}, {"query": "u", "positive": "v"}])
    with pytest.raises(KitError, match=r"a\.jsonl:1: no negative here"):
        prepare([folder], tmp_path / "prepared", Settings())
    write_jsonl(folder / "a.jsonl", [{"query": "q", "positive": "p", "negative": ["S", "n"]}])
    prepare([folder], tmp_path / "prepared", Settings())
    assert read_jsonl(tmp_path / "prepared" / "retrieval" / "a.jsonl")[0]["neg"] == ["n"]
    # also where a row has all the negatives that are wanted
    rows = [{"query": "q", "positive": "p", "negative": "S"}, {"query": "r", "positive": "x", "negative": "y"}]
    write_jsonl(folder / "a.jsonl", rows)
    prepare([folder], tmp_path / "prepared", Settings())
    assert read_jsonl(tmp_path / "prepared" / "retrieval" / "a.jsonl")[0]["neg"][0] in ("x", "y")


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.json", "rows.parquet", "rows.jsonl.gz"])
def test_other_files_prepare_to_the_same_rows(tmp_path, name):
    import gzip

    import pyarrow
    from pyarrow import parquet

    rows = [{"query": f"q {i},\n“x”", "positive": f"p\t{i}", "negative": f'n "{i}"'} for i in range(20)]
    folder = tmp_path / "retrieval"
    write_jsonl(folder / "rows.jsonl", rows)
    prepare([folder], tmp_path / "expected", Settings())
    lines = (folder / "rows.jsonl").read_bytes()
    (folder / "rows.jsonl").unlink()
    if name.endswith((".csv", ".tsv")):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if name.endswith("tsv") else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif name.endswith(".json"):
        (folder / name).write_text(json.dumps(rows, indent=1))
    elif name.endswith(".parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / name)
    else:
        (folder / name).write_bytes(gzip.compress(lines))
    prepare([folder], tmp_path / "prepared", Settings())
    made, expected = (tmp_path / out / "retrieval" / "rows.jsonl" for out in ("prepared", "expected"))
    assert made.read_bytes() == expected.read_bytes()


def test_data_that_memory_would_not_hold_is_refused_before_it_is_read(tmp_path, monkeypatch):
    rows = write_jsonl(tmp_path / "retrieval" / "train.jsonl", PAIRS)
    monkeypatch.setattr("m3kit.data.sets.free_on_machine", lambda: rows.stat().st_size)
    with pytest.raises(KitError, match="takes about 0 GiB of memory, and 0 GiB are free; give fewer or smaller files"):
        prepare([rows], tmp_path / "prepared", Settings())
