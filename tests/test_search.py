"""m3kit search: both models over a run's passages, in the terminal; vectors that are kept; what is refused."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import sys

import numpy as np
import pytest
from search_helpers import search_of, write_run
from tiny import PASSAGES

from m3kit.__main__ import main
from m3kit.encoding.encode import Encoder
from m3kit.errors import KitError
from m3kit.search import kept
from m3kit.search.subject import read_passages
from m3kit.search.terminal import BOLD, render
from m3kit.search.words import marked, shortened, terms

WEIGHTS = {"dense": 1.0, "sparse": 0.3, "colbert": 0.5, "bm25": 0.25}


@pytest.fixture
def run(model_folder, tmp_path):
    return write_run(tmp_path, model_folder)


@pytest.fixture
def encoded(monkeypatch):
    """How many passages were encoded, by each call."""
    counts, plain = [], Encoder.passages

    def counting(self, texts, watch=None):
        counts.append(len(texts))
        return plain(self, texts, watch)

    monkeypatch.setattr(Encoder, "passages", counting)
    return counts


def said(capsys, *words) -> tuple[str, str]:
    assert main(["search", *map(str, words), "--device", "cpu"]) == 0
    return capsys.readouterr()


# ---- what is found -------------------------------------------------------------------------------------------------


def test_both_models_stand_side_by_side_with_each_score(run, capsys):
    found = json.loads(said(capsys, run, "river stone", "--json", "--k", 3)[0])
    assert found["corpus"].endswith("eval/corpus.jsonl") and found["notes"] == []
    (answer,) = found["queries"]
    assert (
        answer["query"] == "river stone"
        and answer["score"] == "dense"
        and list(answer["models"])
        == [
            "base",
            "tuned",
        ]
    )
    before, after = answer["models"].values()
    assert [hit["rank"] for hit in before] == [1, 2, 3] and before != after
    for hit in before + after:
        assert hit["text"] == PASSAGES[hit["_id"]] and hit["score"] == hit["scores"]["dense"]
        assert list(hit["scores"]) == ["dense", "sparse", "colbert", "hybrid", "bm25"]
        single = hit["scores"]
        assert single["hybrid"] == pytest.approx(single["dense"] + 0.3 * single["sparse"] + single["colbert"])
    places = {hit["_id"]: hit["rank"] for hit in after}
    assert all(hit["other_rank"] == places[hit["_id"]] for hit in before if hit["_id"] in places)


@pytest.mark.parametrize("score", ["dense", "sparse", "colbert", "hybrid", "bm25"])
def test_it_ranks_as_the_evaluation_does(run, score):
    from m3kit.encoding.bm25 import Bm25
    from m3kit.encoding.scores import Ranker

    search = search_of(run)
    texts = list(PASSAGES.values())
    encoder = search.engines["tuned"].encoder
    ranker = Ranker(encoder.queries(["winter garden"]), "cpu")
    ranker.add(encoder.passages(texts))
    candidates = ranker.candidates()[0]
    wanted = Bm25(texts).rank(["winter garden"])[0] if score == "bm25" else candidates.ranking(score).tolist()
    hits = search.ask("winter garden", score, 12)["models"]["tuned"]
    assert [hit["number"] for hit in hits] == wanted


def test_the_served_score_is_the_default_where_there_was_an_evaluation(run, capsys):
    bm25 = {"k1": 0.9, "b": 0.4, "method": "lucene", "language": None}
    hybrid = {"model": ".", "weights": WEIGHTS, "encoding": {}, "bm25": bm25}
    (run / "hybrid.json").write_text(json.dumps(hybrid))
    answer = json.loads(said(capsys, run, "river", "--json")[0])["queries"][0]
    assert answer["score"] == "served"
    assert answer["ranked_by"]["tuned"] == "dense + 0.3 sparse + 0.5 ColBERT + 0.25 BM25"
    for hit in answer["models"]["tuned"]:
        assert hit["score"] == pytest.approx(sum(WEIGHTS[part] * hit["scores"][part] for part in WEIGHTS), abs=1e-5)


def test_without_heads_there_are_dense_and_bm25_and_it_is_said(run, capsys):
    (run / "sparse_linear.pt").unlink()
    out, err = said(capsys, run, "river stone", "--json", "--score", "colbert")
    answer = json.loads(out)["queries"][0]
    assert list(answer["models"]["tuned"][0]["scores"]) == ["dense", "bm25"]
    assert answer["ranked_by"] == {"base": "ColBERT", "tuned": "dense"}
    assert "tuned is scored by dense vectors only: sparse_linear.pt missing" in err


def test_queries_come_from_stdin_a_line_each(run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("river stone\n\n  winter \n"))
    assert [answer["query"] for answer in json.loads(said(capsys, run, "--json")[0])["queries"]] == [
        "river stone",
        "winter",
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("river stone\nwinter\n"))
    out = said(capsys, run, "--k", 2)[0]
    assert out.count("BEFORE") == 2 and BOLD not in out


def test_on_a_terminal_they_are_asked_for_until_an_empty_line(run, capsys, monkeypatch):
    typed = iter(["river", "stone", "", "never"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    assert said(capsys, run)[0].count("BEFORE") == 2 and next(typed) == "never"


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_terminal_has_two_columns_where_they_fit(run, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    search = search_of(run)
    lines = render(search.ask("river stone", "dense", 3), {"base": "B", "tuned": "T"}, colour=False).splitlines()
    assert max(map(len, lines)) <= columns
    assert any("BEFORE" in line and "AFTER" in line for line in lines) == (columns >= 80)
    assert f"{BOLD}river" in render(search.ask("river stone", "dense", 3), {"base": "B", "tuned": "T"}, colour=True)


def test_what_a_terminal_would_obey_is_not_printed(run, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"_id": "\x1b[2J", "text": "river \x1b]0;x\x07 stone"}))
    found = search_of(run, corpus=tmp_path / "a.jsonl").ask("river \x1b[31m", "dense", 1)
    assert "\x1b" not in render(found, {"base": "B", "tuned": "T"}, colour=False)


# ---- words ---------------------------------------------------------------------------------------------------------


def test_words_are_marked_whatever_their_case_and_script():
    assert marked("The River, riverbed.", {"river"}) == [("The ", False), ("River", True), (", riverbed.", False)]
    assert marked("北京大学在北京", set(terms("北京"))) == [
        ("北", True), ("京", True), ("大学在", False), ("北", True), ("京", True)
    ]  # fmt: skip
    assert marked("", {"x"}) == [] and marked("<b>", {"b"}) == [("<", False), ("b", True), (">", False)]


def test_a_long_passage_is_cut_around_the_match():
    text = " ".join(["filler"] * 200 + ["needle and thread"] + ["filler"] * 200)
    cut = shortened(text, {"needle", "thread"})
    assert "needle and thread" in cut and cut.startswith("… filler") and cut.endswith("filler …") and len(cut) < 290
    assert shortened("short", {"x"}) == "short" and shortened("x" * 1000, set()).startswith("x" * 280)
    assert shortened(text, set()).startswith("filler") and "针" in shortened("长" * 500 + "针" + "长" * 500, {"针"})


def test_words_that_are_everywhere_are_not_marked(run, tmp_path):
    rows = [{"_id": f"d{n}", "text": f"the river {n}" if n % 9 else "the stone"} for n in range(40)]
    (tmp_path / "more.jsonl").write_text("\n".join(map(json.dumps, rows)))
    search = search_of(run, corpus=tmp_path / "more.jsonl")
    assert search.ask("the stone", "dense", 1)["words"] == ["stone"]
    assert search.ask("the", "dense", 1)["words"] == ["the"]


# ---- vectors that are kept -----------------------------------------------------------------------------------------


def test_vectors_are_computed_once(run, encoded):
    first = search_of(run).ask("river stone", "hybrid", 5)
    assert encoded == [12, 12]
    assert search_of(run).ask("river stone", "hybrid", 5) == first
    assert encoded == [12, 12] and len(list((run / ".search").iterdir())) == 2
    # Another evaluation makes no other model.
    (run / "metrics.json").write_text("{}")
    search_of(run)
    assert encoded == [12, 12]


def test_what_changed_is_computed_again_and_the_stale_deleted(run, encoded):
    search_of(run)
    encoding = json.loads((run / "run.json").read_text())
    encoding["settings"]["passage_max_len"] = 3
    (run / "run.json").write_text(json.dumps(encoding))
    search_of(run)
    assert encoded == [12] * 4 and len(list((run / ".search").iterdir())) == 2
    # Another content is another model.
    shutil.copy(f"{encoding['settings']['model_name_or_path']}/model.safetensors", run)
    search_of(run)
    assert encoded == [12] * 5 and len(list((run / ".search").iterdir())) == 2
    # Of other passages nothing is deleted.
    other = run.parent / "other.jsonl"
    other.write_text('{"text": "river"}\n')
    search_of(run, corpus=other)
    assert encoded == [12] * 5 + [1, 1] and len(list((run / ".search").iterdir())) == 4


def test_damaged_vectors_are_computed_again(run, encoded):
    search_of(run)
    for file, content in ((kept.VECTORS, b"PK\x03\x04"), (kept.LEXICAL, b""), (kept.COLBERT, b"123")):
        for place in (run / ".search").iterdir():
            (place / file).write_bytes(content)
        search_of(run)
    assert encoded == [12] * 8


def test_a_folder_that_cannot_be_written_is_no_hindrance(run, capsys):
    (run / ".search").write_text("a file")
    assert "are not kept in" in said(capsys, run, "river")[1]


def test_colbert_that_is_too_large_is_computed_for_what_is_ranked(run, monkeypatch, encoded):
    wanted = search_of(run).ask("river stone", "hybrid", 5)
    shutil.rmtree(run / ".search")
    monkeypatch.setattr(kept, "MOST_COLBERT", 100)
    search = search_of(run)
    found = search.ask("river stone", "hybrid", 5)
    assert not list(run.glob(f".search/*/{kept.COLBERT}")) and encoded[-2:] == [12, 12]
    for name in ("base", "tuned"):
        assert [hit["_id"] for hit in found["models"][name]] == [hit["_id"] for hit in wanted["models"][name]]
        for one, two in zip(found["models"][name], wanted["models"][name], strict=True):
            assert np.allclose(list(one["scores"].values()), list(two["scores"].values()), atol=2e-3)
    search.ask("river stone", "dense", 3)
    assert encoded[-2:] == [3, 3]


# ---- passages, and what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.jsonl", '{"_id": 7, "title": "T", "text": "one"}\n{"text": "two"}', {"7": "T one", "2": "two"}),
        ("a.csv", "id,text\nx,one\ny,two\n", {"x": "one", "y": "two"}),
        ("a.json", '[{"id": "x", "text": "one", "more": 1}]', {"x": "one"}),
    ],
)
def test_passages_come_from_any_file_of_rows(tmp_path, name, content, found):
    (tmp_path / name).write_text(content)
    assert read_passages(tmp_path / name) == found


def test_bad_passages_are_named_with_their_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"_id": "x", "text": "one"}\n{"_id": "x", "text": "two"}\n{"body": "b"}\n')
    with pytest.raises(KitError, match="2 problems in the passages") as error:
        read_passages(tmp_path / "a.jsonl")
    assert "a.jsonl:2" in str(error.value)


def test_what_cannot_be_searched_gets_a_sentence_with_its_cure(run, model_folder, tmp_path, capsys):
    def refused(*words) -> str:
        assert main(["search", *map(str, words)]) == 1
        told = capsys.readouterr().err.splitlines()[-1]
        assert told.startswith("m3kit search: ")
        return told

    assert "there is no run in nowhere (no run.json); give the folder of a finished one" in refused("nowhere", "q")
    assert "give --base a model, and --corpus" in refused(model_folder, "q")
    assert "there is no file of passages nope; give --corpus" in refused(run, "q", "--corpus", "nope")
    assert "has no hybrid.json; python -m m3kit evaluate --output_dir" in refused(run, "q", "--score", "served")
    assert f"--output_dir {shlex.quote(str(run))} writes it" in refused(run, "q", "--score", "served")
    assert "leave --serve out" in refused(run, "q", "--serve")
    assert "the query is empty; give one in quotes" in refused(run, " ")
    assert "holds no model (no config.json)" in refused(run, "q", "--base", tmp_path)

    record = json.loads((run / "run.json").read_text())
    shutil.rmtree(tmp_path / "eval")
    assert "is not there; give --corpus a file of passages" in refused(run, "q")
    record["settings"]["model_name_or_path"] = "./gone"
    (run / "run.json").write_text(json.dumps(record))
    assert "./gone, is not there" in refused(run, "q") and "give it with --base" in refused(run, "q")
    (run / "run.json").write_text(json.dumps(record | {"status": "running"}))
    assert "is not finished; train it to its end" in refused(run, "q")
    (run / "run.json").write_text("{")
    assert "has a damaged run.json" in refused(run, "q")


def test_bytes_from_stdin_that_are_no_text_are_searched_for_as_far_as_they_are(run, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"river \xff\n"), "utf-8"))
    assert main(["search", str(run), "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["queries"][0]["query"] == "river \ufffd"


def test_any_model_can_be_searched_beside_a_base(model_folder, tmp_path, capsys):
    model = shutil.copytree(model_folder, tmp_path / "model")
    (tmp_path / "a.csv").write_text("id,text\nx,river stone\n")
    words = [model, "river", "--base", model_folder, "--corpus", tmp_path / "a.csv", "--query_max_len", "32"]
    assert "[x]" in said(capsys, *words)[0]
