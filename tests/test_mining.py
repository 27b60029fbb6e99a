"""m3kit mine: which negatives are taken, which are kept out, and what is said about it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import KIT, read_jsonl, write_jsonl
from mining_helpers import WORDS, made_up_rows, write_rows, write_word_model

from m3kit.__main__ import main
from m3kit.mining.mine import MiningSettings, mine
from m3kit.mining.search import Found

ENCODING = {"pooling_method": "mean", "query_max_len": 64, "passage_max_len": 64}


@pytest.fixture(scope="module")
def word_model(tmp_path_factory) -> Path:
    return write_word_model(tmp_path_factory.mktemp("mining") / "wörd 'model'")


def settings(**given) -> MiningSettings:
    return MiningSettings(**{"depth": 20, "encoding": ENCODING, "device": "cpu", "shard_size": 32, **given})


def mined(rows: list[dict], model: Path, folder: Path, **given) -> tuple[list[dict], dict]:
    """(rows with their mined negatives, manifest)"""
    manifest = mine([write_rows(folder / "prepared", rows)], str(model), folder / "out", settings(**given))
    return read_jsonl(folder / "out" / "retrieval" / "train.jsonl"), manifest


# ---- what is mined -------------------------------------------------------------------------------------------------


def test_negatives_are_the_passages_most_like_the_query_but_no_positive(word_model, tmp_path):
    rows = made_up_rows(60)
    found, manifest = mined(rows, word_model, tmp_path)
    hard = 0
    for number, (before, after) in enumerate(zip(rows, found, strict=True)):
        assert list(after) == list(before)
        assert {key: after[key] for key in after if key != "neg"} == {
            key: before[key] for key in before if key != "neg"
        }
        assert len(after["neg"]) == len(set(after["neg"])) == 8 and not set(after["neg"]) & set(before["pos"])
        group = {row["pos"][0] for row in rows[number // 10 * 10 : number // 10 * 10 + 10]}
        hard += len(group & set(after["neg"]))
    # Of 119 other passages the nine of the row's own group share the query's words.
    assert hard > 60 * 3  # by chance it would be 60 * 0.6
    assert manifest["counts"]["negatives_mined"] == 60 * 8
    assert 0.8 <= manifest["share"]["value"] <= 0.98
    for example in manifest["examples"]:
        assert example["negative_score"] <= manifest["share"]["value"] * example["positive_score"] + 1e-4


def planted(rows: list[dict]) -> list[dict]:
    """Rows whose negatives hide copies of another row's positive, written otherwise."""
    rows = [row | {"neg": list(row["neg"])} for row in rows]
    for number, row in enumerate(rows):
        words = rows[(number + 1) % len(rows)]["pos"][0].split()
        changed = [*words[:5], next(word for word in WORDS if word not in words), *words[6:]]
        row["neg"] += [" ".join(words).upper(), ", ".join(words) + ".", " ".join(changed)]
    return rows


def copies_taken(found: list[dict], rows: list[dict]) -> list[int]:
    """How many negatives are the row's own positive in upper case, with punctuation, and with a word changed."""
    counts = [0, 0, 0]
    for row, hidden in zip(found, [rows[-1], *rows], strict=False):
        for kind, copy in enumerate(hidden["neg"][1:4]):
            counts[kind] += copy in row["neg"]
    return counts


def test_planted_false_negatives_are_never_mined_but_without_the_filter_they_are(word_model, tmp_path):
    rows = planted(made_up_rows(60))
    # The highest share there is: what keeps the copies out is that they are copies.
    found, manifest = mined(rows, word_model, tmp_path / "a", max_share=1.0)
    assert copies_taken(found, rows) == [0, 0, 0]
    assert sum(manifest["thrown_away"].values()) >= 60 * 3
    unfiltered, manifest = mined(rows, word_model, tmp_path / "b", no_filter=True)
    assert all(count > 50 for count in copies_taken(unfiltered, rows))
    assert manifest["thrown_away"] == {} and manifest["share"]["value"] is None


def test_positives_of_the_same_query_written_otherwise_and_the_query_are_kept_out(word_model, tmp_path):
    rows = made_up_rows(60)
    other = " ".join(WORDS[:9])
    rows.append(rows[0] | {"query": rows[0]["query"].upper() + "  ", "pos": [other]})
    rows.append(rows[1] | {"neg": [rows[0]["query"]]})
    found, manifest = mined(rows, word_model, tmp_path, max_share=1.0)
    assert rows[0]["pos"][0] not in found[60]["neg"] and other not in found[0]["neg"]
    assert rows[0]["query"] not in found[0]["neg"]
    thrown = manifest["thrown_away"] | manifest["given_negatives_thrown_away"]
    assert any("same query" in reason for reason in thrown) and "the query itself" in thrown


@pytest.mark.slow
def test_the_share_is_calibrated_on_the_data(word_model, tmp_path):
    shares = {}
    for shared in (2, 10):
        _, manifest = mined(made_up_rows(60, shared=shared), word_model, tmp_path / str(shared))
        shares[shared] = manifest["share"]["value"]
        assert "60 rows" in manifest["share"]["reason"]
    assert 0.8 <= shares[2] < shares[10] <= 0.98
    _, manifest = mined(made_up_rows(20), word_model, tmp_path / "few")
    assert manifest["share"]["value"] == 0.95 and "20 rows" in manifest["share"]["reason"]
    _, manifest = mined(made_up_rows(60), word_model, tmp_path / "given", max_share=0.5)
    assert manifest["share"] == {"value": 0.5, "reason": "--max_share"}


def test_given_negatives_follow_and_stay_where_nothing_else_is_left(word_model, tmp_path):
    rows = made_up_rows(4)
    rows[2] = rows[2] | {"neg": [rows[2]["pos"][0].upper()]}
    found, manifest = mined(rows, word_model, tmp_path, negatives=20, max_share=0.01)
    assert found == rows  # everything scores above so low a share
    assert manifest["counts"]["rows_left_as_given"] == 4
    found, _ = mined(rows, word_model, tmp_path, negatives=20, depth=20, max_share=1.0)
    assert rows[0]["neg"][0] in found[0]["neg"] and rows[2]["neg"][0] not in found[2]["neg"]


def test_a_corpus_is_searched_too(word_model, tmp_path):
    rows = made_up_rows(60)
    texts = [" ".join(row["query"].split()[2:] + WORDS[:8]) for row in rows]
    lines = [{"_id": str(n), "title": text[:11], "text": text[12:]} for n, text in enumerate(texts)]
    corpus = write_jsonl(tmp_path / "corpus.jsonl", lines)
    found, manifest = mined(rows, word_model, tmp_path, corpus=corpus, max_share=1.0)
    assert manifest["counts"]["passages_of_the_corpus_alone"] == 60
    assert sum(f"{text[:11]} {text[12:]}" in row["neg"] for text, row in zip(texts, found, strict=True)) > 40


def test_rows_of_other_tasks_are_copied_and_all_are_counted(word_model, tmp_path):
    others = [
        {"query": f"q{n}", "pos": ["yes"], "neg": ["no"], "prompt": "", "type": kind}
        for n, kind in enumerate(("graded_sts", "symmetric_sts", "symmetric_class", "symmetric_clustering"))
    ]
    prepared = tmp_path / "prepared"
    write_rows(prepared, made_up_rows(60, seed=1), "one")
    write_rows(prepared, made_up_rows(60, seed=2), "two")
    for row in others:
        write_jsonl(prepared / row["type"] / "rows.jsonl", [row])
    scored = {"pos_scores": [2.0], "neg_scores": [1.0]}
    write_jsonl(prepared / "scored" / "rows.jsonl", [row | scored for row in made_up_rows(10, seed=3)])
    manifest = mine([prepared], str(word_model), tmp_path / "out", settings())
    for row in others:
        name = f"{row['type']}/rows.jsonl"
        assert (tmp_path / "out" / name).read_bytes() == (prepared / name).read_bytes()
    counts = manifest["counts"]
    assert counts["rows_read"] == counts["rows_written"] == 134 == sum(entry["rows"] for entry in manifest["files"])
    assert counts["rows_mined"] == 130 and counts["rows_copied"] == 4
    # A teacher has not scored the new negatives.
    assert not any("neg_scores" in row or "pos_scores" in row for row in read_jsonl(tmp_path / "out/scored/rows.jsonl"))
    assert counts["rows_without_their_teacher_scores"] == 10
    # What mine wrote can be mined again, as a second round does.
    again = mine([tmp_path / "out"], str(word_model), tmp_path / "again", settings())
    assert again["counts"]["rows_read"] == 134


def test_a_reranker_throws_away_what_it_takes_for_right(word_model, tmp_path, monkeypatch):
    class Fake:
        """Takes a passage for right that begins with that word: logits."""

        def __init__(self, given, **machine):
            assert given == "any"

        def scores(self, pairs):
            return np.array([2.0 if text.startswith("right") else -2.0 for _, _, text in pairs], np.float32)

    monkeypatch.setattr("m3kit.teachers.Reranker", Fake)
    rows = [row | {"pos": [f"right {row['pos'][0]}"]} for row in made_up_rows(60)]
    found, manifest = mined(rows, word_model, tmp_path, reranker="any", max_share=0.95)
    assert not any("right" in text for row in found for text in row["neg"])
    assert any("reranker" in reason for reason in manifest["thrown_away"])
    # All other passages are positives of some row, so the given ones are left.
    assert manifest["counts"]["given_negatives_kept"] > 0


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_command_prints_folders_and_says_what_was_thrown_away(word_model, tmp_path, capsys):
    file = write_rows(tmp_path / "prepared", planted(made_up_rows(60)))
    options = ["--model", str(word_model), "--pooling_method", "mean", "--device", "cpu", "--depth", "20"]
    out = tmp_path / "out"
    assert main(["mine", "--train_data", str(file), "--output_dir", str(out), *options]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out / 'retrieval'}\n"
    assert "candidates thrown away" in captured.err and "nearly a positive" in captured.err
    assert "a negative scores at most 0." in captured.err and captured.err.count("query:    ") == 10
    manifest = json.loads((out / "mining.json").read_text())
    assert sorted(path.name for path in out.iterdir()) == ["mining.json", "retrieval"]
    assert manifest["model"] == str(word_model) and manifest["encoding"]["pooling_method"] == "mean"
    assert main(["mine", "--train_data", str(file), "--output_dir", str(out), *options, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "mining.json").read_text())
    assert {**printed, "seconds": 0} == {**manifest, "seconds": 0}


def test_bad_input_is_named(word_model, tmp_path, capsys):
    good = write_rows(tmp_path / "good", made_up_rows(3))
    row = made_up_rows(1)[0]
    lines = ['{"query": "a"', json.dumps(row | {"neg": "text"}), json.dumps(row | {"query": " "}), json.dumps(row)]
    bad = tmp_path / "bad" / "retrieval" / "rows.jsonl"
    bad.parent.mkdir(parents=True)
    bad.write_text("\n".join(lines))
    empty = write_rows(tmp_path / "empty", [])
    sts = write_rows(tmp_path / "sts", [row | {"type": "symmetric_sts"}])
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("")

    def told(train, model=word_model, out=tmp_path / "out", *more) -> str:
        arguments = ["--train_data", str(train), "--model", str(model), "--output_dir", str(out), "--device", "cpu"]
        assert main(["mine", *arguments, *more]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err

    assert "there is no model at" in told(good, tmp_path / "none" / "model")
    message = told(bad)
    assert f"{bad}:1: not valid JSON" in message and f"{bad}:2: " in message and "line 3: " in message
    assert "line 4" not in message
    assert f"{empty}:1: the file has no row" in told(empty)
    assert "nothing to mine" in told(sts)
    assert "choose an empty or new folder" in told(good, out=foreign)
    (tmp_path / "good" / "mining.json").write_text("{}")
    assert "lies in --output_dir" in told(good, out=tmp_path / "good")
    assert "no such file" in told(tmp_path / "nothing")
    assert "--corpus" in told(good, word_model, tmp_path / "out", "--corpus", str(tmp_path / "c"))
    corpus = write_jsonl(tmp_path / "c.jsonl", [{"text": "fine"}, {"text": " "}])
    assert f"{corpus}:2: " in told(good, word_model, tmp_path / "out", "--corpus", str(corpus))
    assert "--max_share" in told(good, word_model, tmp_path / "out", "--max_share", "1.5")
    assert "--no_filter" in told(good, word_model, tmp_path / "out", "--reranker", str(word_model), "--no_filter")
    assert "is no reranker" in told(good, word_model, tmp_path / "out", "--reranker", str(word_model))
    assert not (tmp_path / "out").exists() and not (tmp_path / ".out.mining").exists()


# ---- shards, interruptions, processes ------------------------------------------------------------------------------


def files_of(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.jsonl")}
    manifest = json.loads((folder / "mining.json").read_text())
    return found | {"mining.json": json.dumps({**manifest, "seconds": None}).encode()}


def test_killed_between_shards_it_goes_on_and_ends_with_the_same_files(word_model, tmp_path, monkeypatch, capsys):
    from m3kit.encoding.encode import Encoder

    file = write_rows(tmp_path / "prepared", made_up_rows(60))
    mine([file], str(word_model), tmp_path / "whole", settings())
    encode = Encoder.passages
    encoded: list[str] = []

    def stop_in_the_third(self, texts, watch=None):
        if len(encoded) == 64:
            raise KeyboardInterrupt
        encoded.extend(texts)
        return encode(self, texts, watch)

    def counted(self, texts, watch=None):
        encoded.extend(texts)
        return encode(self, texts, watch)

    monkeypatch.setattr(Encoder, "passages", stop_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        mine([file], str(word_model), tmp_path / "out", settings())
    assert not (tmp_path / "out").exists() and len(encoded) == 64
    monkeypatch.setattr(Encoder, "passages", counted)
    mine([file], str(word_model), tmp_path / "out", settings())
    assert len(encoded) == len(set(encoded)) == 120  # none twice
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert "going on with what an earlier run left" in capsys.readouterr().err
    assert not list(tmp_path.glob(".out.mining"))


def test_rows_that_changed_meanwhile_are_searched_anew(word_model, tmp_path, monkeypatch):
    take = Found.take

    def stop_in_the_second(self, found):
        take(self, found)
        if list((tmp_path / ".out.mining").glob("shard-*.npz")):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Found, "take", stop_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            mined(made_up_rows(60, seed=1), word_model, tmp_path)
    found, manifest = mined(made_up_rows(60, seed=2), word_model, tmp_path)
    whole, expected = mined(made_up_rows(60, seed=2), word_model, tmp_path / "whole")
    assert found == whole and manifest["thrown_away"] == expected["thrown_away"]


@pytest.mark.slow
def test_two_processes_write_the_same_as_one(word_model, tmp_path):
    file = write_rows(tmp_path / "prepared", planted(made_up_rows(60)))
    options = ["-m", "m3kit", "mine", "--train_data", str(file), "--model", str(word_model), "--device", "cpu"]
    options += ["--pooling_method", "mean", "--shard_size", "32", "--depth", "20", "--output_dir"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for name, start in (("one", [sys.executable]), ("two", torchrun)):
        done = subprocess.run([*start, *options, str(tmp_path / name)], cwd=KIT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{tmp_path / name / 'retrieval'}\n"
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_a_model_without_heads_mines_by_dense_and_bm25(word_model, tmp_path):
    headless = Path(shutil.copytree(word_model, tmp_path / "headless"))
    (headless / "sparse_linear.pt").unlink()
    _found, manifest = mined(made_up_rows(60), headless, tmp_path)
    assert manifest["counts"]["negatives_mined"] == 480 and "dense vectors only" in " ".join(manifest["notes"])


# ---- the parts -----------------------------------------------------------------------------------------------------
