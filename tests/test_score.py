"""Teacher scores: what they are, that they are complete, and that a killed run goes on to the same bytes."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import read_jsonl, write_jsonl
from tiny import WORDS

from m3kit import score as module
from m3kit.__main__ import main
from m3kit.errors import KitError
from m3kit.score import score

HEADS = ("colbert_linear.pt", "sparse_linear.pt")


def text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(WORDS, k=words))


def write_prepared(folder: Path, count: int = 12, prompt: str = "") -> Path:
    """As prepare leaves it: rows of retrieval, rows of another task, and what lies beside them."""
    chance = random.Random(3)
    rows = [
        {
            "query": text(chance, 3),
            "pos": [text(chance, 6) for _ in range(1 + i % 2)],
            "neg": [text(chance, 6) for _ in range(2)],
            "prompt": prompt,
            "type": "retrieval",
        }
        for i in range(count)
    ]
    # A pair that stands twice.
    rows[-1] |= {"query": rows[0]["query"], "pos": rows[0]["pos"]}
    write_jsonl(folder / "retrieval" / "train.jsonl", rows)
    other = {"query": "river", "pos": ["stone"], "neg": ["cloud"], "prompt": "", "type": "symmetric_class"}
    write_jsonl(folder / "classification-no_in_batch_neg" / "train.jsonl", [other])
    (folder / "rejected.jsonl").write_text('{"reason": "not a row"}\n')
    (folder / "eval").mkdir()
    (folder / "eval" / "corpus.jsonl").write_text('{"_id": "d1", "text": "held out"}\n')
    return folder


@pytest.fixture
def prepared(tmp_path):
    return write_prepared(tmp_path / "prepared")


@pytest.fixture(scope="module")
def reranker(model_folder, tmp_path_factory) -> Path:
    """A tiny cross-encoder with random weights."""
    from transformers import AutoTokenizer, XLMRobertaConfig, XLMRobertaForSequenceClassification

    folder = tmp_path_factory.mktemp("models") / "reranker [1]"
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(folder)
    torch.manual_seed(5)
    config = XLMRobertaConfig.from_pretrained(model_folder, num_labels=1)
    model = XLMRobertaForSequenceClassification(config)
    # Random weights of the usual size give nearly one score to all.
    for parameter in model.classifier.parameters():
        torch.nn.init.normal_(parameter, std=3.0)
    model.save_pretrained(folder)
    return folder


def scored(folder: Path) -> list[dict]:
    return read_jsonl(folder / "retrieval" / "train.jsonl")


def pairs_of(rows: list[dict]) -> list[tuple[str, str]]:
    return [(row["query"], passage) for row in rows for passage in row["pos"] + row["neg"]]


def scores_of(rows: list[dict]) -> list[float]:
    return [one for row in rows for one in row["pos_scores"] + row["neg_scores"]]


def run(*words) -> int:
    return main(["score", *map(str, words), "--device", "cpu"])


def test_a_reranker_gives_flagembeddings_raw_scores(prepared, reranker, tmp_path, capsys):
    from FlagEmbedding import FlagReranker

    out = tmp_path / "out"
    assert run("--train_data", prepared, "--teacher", f"reranker:{reranker}", "--output_dir", out) == 0
    told = capsys.readouterr()
    assert told.out.split("\n")[:-1] == [str(out / name) for name in ("classification-no_in_batch_neg", "retrieval")]
    rows, before = scored(out), scored(prepared)
    assert [{key: row[key] for key in before[0]} for row in rows] == before
    # Nothing else, and other tasks to the byte.
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert written == ["classification-no_in_batch_neg/train.jsonl", "retrieval/train.jsonl", "scores.json"]
    assert (out / written[0]).read_bytes() == (prepared / written[0]).read_bytes()

    expected = FlagReranker(str(reranker), devices=["cpu"], use_fp16=False).compute_score(
        [list(pair) for pair in pairs_of(rows)], normalize=False
    )
    assert np.std(expected) > 0.1, "all alike: nothing to compare"
    assert scores_of(rows) == pytest.approx(expected, abs=1e-4)
    assert min(expected) < 0 or max(expected) > 1, "as if a sigmoid made no difference"

    manifest = json.loads((out / "scores.json").read_text())
    above = sum(max(row["neg_scores"]) > min(row["pos_scores"]) for row in rows)
    assert manifest["negative_above_positive"]["rows"] == above
    assert (manifest["rows_scored"], manifest["rows_copied"]) == (12, 1)
    positives = [one for row in rows for one in row["pos_scores"]]
    assert manifest["positives"]["quantiles"]["50"] == pytest.approx(np.median(positives), abs=1e-3)
    summary = told.err.rstrip().split("\n")[-2:]
    assert "12 rows with the scores of the teacher (reranker" in summary[0]
    assert f"disagrees with the labels in {above} rows" in summary[1]


def test_a_cross_encoder_that_sentence_transformers_saved(prepared, reranker, tmp_path):
    from sentence_transformers import CrossEncoder

    CrossEncoder(str(reranker), device="cpu").save_pretrained(str(tmp_path / "saved"))
    for name, model in (("one", reranker), ("other", tmp_path / "saved")):
        run("--train_data", prepared, "--teacher", f"reranker:{model}", "--output_dir", tmp_path / name)
    assert scores_of(scored(tmp_path / "one")) == scores_of(scored(tmp_path / "other"))


@pytest.mark.parametrize("prompt", ["", "light "])
def test_hybrid_is_what_flagembedding_computes_and_bm25(model_folder, tmp_path, prompt):
    from FlagEmbedding import BGEM3FlagModel

    prepared, out = write_prepared(tmp_path / "prepared", prompt=prompt), tmp_path / "out"
    common = ["--train_data", prepared, "--teacher", "hybrid", "--model", model_folder]
    assert run(*common, "--output_dir", out, "--bm25_weight", "0") == 0
    rows = scored(out)
    model = BGEM3FlagModel(str(model_folder), use_fp16=False, devices=["cpu"], colbert_dim=8)
    found = model.compute_score(
        [[prompt + query, passage] for query, passage in pairs_of(rows)], weights_for_different_modes=[1, 0.3, 1]
    )
    expected = np.array(found["colbert+sparse+dense"]) * 2.3  # it divides by the sum of the weights
    assert scores_of(rows) == pytest.approx(expected, abs=1e-4)

    assert run(*common, "--output_dir", out, "--bm25_weight", "0.5") == 0
    added = (np.array(scores_of(scored(out))) - expected) / 0.5
    assert added.min() > -1e-3
    assert added.max() < 1 + 1e-3
    # A word of the query counts, and only that.
    shares = [bool(set(query.split()) & set(passage.split())) for query, passage in pairs_of(rows)]
    assert [bool(one) for one in added > 1e-3] == shares
    assert json.loads((out / "scores.json").read_text())["teacher"]["weights"]["bm25"] == 0.5


def test_hybrid_without_heads_is_the_dense_score(prepared, model_folder, tmp_path, capsys):
    from FlagEmbedding import BGEM3FlagModel

    model = tmp_path / "model"
    shutil.copytree(model_folder, model)
    for head in HEADS:
        (model / head).unlink()
    out = tmp_path / "out"
    common = ["--train_data", prepared, "--teacher", "hybrid", "--model", model]
    run(*common, "--output_dir", out, "--bm25_weight", "0")
    assert "dense vectors only" in capsys.readouterr().err
    flag = BGEM3FlagModel(str(model), use_fp16=False, devices=["cpu"])
    dense = [flag.encode(list(texts))["dense_vecs"] for texts in zip(*pairs_of(scored(out)), strict=True)]
    assert scores_of(scored(out)) == pytest.approx((dense[0] * dense[1]).sum(axis=1), abs=1e-5)


class Counting:
    """A teacher that is stopped after so many shards; each score tells its pair."""

    about = {"kind": "counting"}
    batch_size = 1

    def __init__(self, shards: int = 1000, bad: str | None = None, **about) -> None:
        self.about = {"kind": "counting", **about}
        self.left, self.bad, self.seen = shards, bad, []

    def scores(self, pairs):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        self.seen += pairs
        return np.array([float("nan") if passage == self.bad else len(q + passage) / 7 for _, q, passage in pairs])

    def close(self) -> None:
        pass


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_each_pair_is_scored_once(prepared, tmp_path):
    teacher = Counting()
    score([prepared], tmp_path / "out", lambda _: teacher)
    rows = scored(tmp_path / "out")
    assert len(teacher.seen) == len(set(pairs_of(rows))) < len(pairs_of(rows))
    assert scores_of(rows) == pytest.approx([len(q + passage) / 7 for q, passage in pairs_of(rows)], abs=1e-5)


@pytest.mark.parametrize("stray", [0, 3])
def test_killed_and_run_again_it_goes_on_to_the_same_bytes(prepared, tmp_path, monkeypatch, stray):
    monkeypatch.setattr(module, "SHARD", 8)
    score([prepared], tmp_path / "whole", lambda _: Counting())
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        score([prepared], out, lambda _: Counting(shards=2))
    assert not out.exists()
    with (tmp_path / ".out.scores").open("ab") as kept:
        kept.write(b"\xff" * stray)  # half of what was being written
    teacher = Counting()
    score([prepared], out, lambda _: teacher)
    whole = len(set(pairs_of(scored(out))))
    assert len(teacher.seen) == whole - 16
    assert contents(out) == contents(tmp_path / "whole")
    assert not (tmp_path / ".out.scores").exists()


def test_what_another_teacher_scored_is_not_taken(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD", 8)
    with pytest.raises(KeyboardInterrupt):
        score([prepared], tmp_path / "out", lambda _: Counting(shards=2))
    teacher = Counting(max_length=7)
    score([prepared], tmp_path / "out", lambda _: teacher)
    assert len(teacher.seen) == len(set(pairs_of(scored(tmp_path / "out"))))


def test_a_score_that_is_not_finite_is_refused_with_its_line(prepared, tmp_path):
    bad = scored(prepared)[4]["neg"][1]
    with pytest.raises(KitError, match=r"train\.jsonl:5: no finite score for each of 1 positives and 2 negatives"):
        score([prepared], tmp_path / "out", lambda _: Counting(bad=bad))
    assert not (tmp_path / "out").exists()


def graded(prepared: Path) -> list[dict]:
    path = prepared / "retrieval" / "train.jsonl"
    rows = [row | {"pos_scores": [3] * len(row["pos"]), "neg_scores": [0.5, 4.25]} for row in read_jsonl(path)]
    write_jsonl(path, rows)
    return rows


def test_given_scores_are_kept(prepared, tmp_path):
    rows, out = graded(prepared), tmp_path / "out"
    assert run("--train_data", prepared / "retrieval", "--teacher", "given", "--output_dir", out) == 0
    assert scored(out) == rows
    assert json.loads((out / "scores.json").read_text())["negative_above_positive"] == {
        "rows": 12, "share_of_rows": 1.0, "share_of_pairs": 0.5,
    }  # fmt: skip


def test_another_teacher_replaces_them_and_says_so(prepared, tmp_path, capsys):
    graded(prepared)
    score([prepared], tmp_path / "out", lambda _: Counting())
    assert "12 rows had scores, which those of the teacher replace" in capsys.readouterr().err
    assert scores_of(scored(tmp_path / "out"))[0] != 3


@pytest.mark.parametrize(
    "change",
    [
        {"pos_scores": None},
        {"neg_scores": [1.0]},
        {"neg_scores": [1.0, None]},
        {"neg_scores": [1.0, True]},
        {"neg_scores": "12"},
    ],
)
def test_given_scores_must_be_complete(prepared, tmp_path, change, capsys):
    rows = graded(prepared)
    rows[2] |= change
    write_jsonl(prepared / "retrieval" / "train.jsonl", rows)
    assert run("--train_data", prepared, "--teacher", "given", "--output_dir", tmp_path / "out") == 1
    assert "train.jsonl:3: no finite score for each of 1 positives and 2 negatives" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--teacher", "oracle"], "give reranker:PATH, hybrid or given"),
        (["--teacher", "reranker:"], "give reranker:PATH, hybrid or given"),
        (["--teacher", "reranker:./no/such"], "there is no model at ./no/such"),
        (["--teacher", "hybrid", "--bm25_weight", "-1"], "bm25_weight is a number of 0 or more"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(prepared, tmp_path, capsys, words, told):
    assert run("--train_data", prepared, "--output_dir", tmp_path / "out", *words) == 1
    assert told in capsys.readouterr().err


def test_an_embedding_model_is_no_reranker(prepared, model_folder, tmp_path, capsys):
    """CrossEncoder itself would put a random classifier on it."""
    teacher = f"reranker:{model_folder}"
    assert run("--train_data", prepared, "--output_dir", tmp_path / "out", "--teacher", teacher) == 1
    assert "is no reranker" in capsys.readouterr().err


def test_rows_that_are_not_prepared_are_named(prepared, tmp_path, capsys):
    path = prepared / "retrieval" / "train.jsonl"
    path.write_text(path.read_text() + '{"query": "river", "pos": "stone", "neg": ["cloud"]}\n')
    assert run("--train_data", prepared, "--output_dir", tmp_path / "out", "--teacher", "given") == 1
    assert 'train.jsonl:13: "pos" is no list with a passage in it' in capsys.readouterr().err


def test_no_other_folder_is_overwritten(prepared, tmp_path):
    with pytest.raises(KitError, match="lies in --output_dir"):
        score([prepared], prepared, lambda _: Counting())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(KitError, match="choose an empty or new folder"):
        score([prepared], tmp_path / "mine", lambda _: Counting())
    for _ in range(2):  # an earlier one makes room
        score([prepared], tmp_path / "out", lambda _: Counting())


@pytest.mark.slow
def test_training_distils_from_scored_rows(prepared, reranker, starter, tmp_path):
    """To the end, and to other weights than without the teacher."""
    from runs import arguments, train, weights

    out = tmp_path / "scored"
    assert run("--train_data", prepared, "--teacher", f"reranker:{reranker}", "--output_dir", out) == 0
    (out / "scores.json").rename(tmp_path / "scores.json")  # ``arguments`` takes all of the folder
    found = []
    for distils in (True, False):
        settings = {"knowledge_distillation": distils, "teacher_temperature": 0.5, "teacher_normalisation": "zscore"}
        run_of = train(arguments(starter, out, tmp_path / f"run {distils}", max_steps=4, **settings))
        found.append(weights(run_of.output))
        record = json.loads((run_of.output / "run.json").read_text())
        taught = {Path(entry["path"]).parent.name: entry["teacher_scores"] for entry in record["data"]}
        assert taught == {"retrieval": distils, "classification-no_in_batch_neg": False}
        assert record["settings"]["teacher_normalisation"] == "zscore"
    assert any(not torch.equal(value, found[1][name]) for name, value in found[0].items())
