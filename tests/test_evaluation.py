"""Evaluation: reading BEIR folders, the four scores, the metrics, and the command as a whole."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from m3kit.__main__ import main
from m3kit.errors import KitError
from m3kit.evaluation import scores
from m3kit.evaluation.beir import read_eval_data
from m3kit.evaluation.encode import Encoder, EncodeSettings
from m3kit.evaluation.evaluate import parse_models
from m3kit.evaluation.metrics import measure
from m3kit.evaluation.models import choose_device, choose_precision, find_model
from m3kit.evaluation.table import render_table, verdict
from m3kit.evaluation.vectors import Vectors

WORDS = ["river", "stone", "cloud", "apple", "train", "paper", "music", "light", "winter", "garden", "copper", "signal"]
PASSAGES = {f"d{i}": f"{WORDS[i % 12]} {WORDS[(i * 5 + 1) % 12]} {WORDS[(i * 7 + 3) % 12]}" for i in range(12)}
QUERIES = {"q1": "river stone", "q2": "copper light", "q3": "winter"}
QRELS = [("q1", "d0", 1), ("q1", "d1", 0), ("q2", "d10", 2), ("q3", "d8", 1)]


def write_beir(folder: Path, passages=None, queries=None, qrels=None) -> Path:
    """A BEIR folder; each argument replaces a whole file's lines."""
    rows = {
        "corpus.jsonl": passages or [json.dumps({"_id": i, "title": "", "text": t}) for i, t in PASSAGES.items()],
        "queries.jsonl": queries or [json.dumps({"_id": i, "text": t}) for i, t in QUERIES.items()],
        "qrels/test.tsv": qrels or ["query-id\tcorpus-id\tscore"] + ["\t".join(map(str, pair)) for pair in QRELS],
    }
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, lines in rows.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A tiny XLM-R with both heads and a word tokenizer; its path has what paths may have."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

    folder = tmp_path_factory.mktemp("models") / "tiny 'mödel' [1]"
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = {token: number for number, token in enumerate(special + WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    PreTrainedTokenizerFast(
        tokenizer_object=words, cls_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(7)
    config = XLMRobertaConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=66, type_vocab_size=1,
    )  # fmt: skip
    XLMRobertaModel(config).save_pretrained(folder)
    torch.save(torch.nn.Linear(16, 8).state_dict(), folder / "colbert_linear.pt")
    torch.save(torch.nn.Linear(16, 1).state_dict(), folder / "sparse_linear.pt")
    return folder


# ---- reading -------------------------------------------------------------------------------------------------------


def test_reading_needs_no_torch():
    code = "import sys, m3kit.evaluation.beir, m3kit.evaluation.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_title_goes_before_the_text_and_queries_without_an_answer_are_left_out(tmp_path):
    passages = [
        '{"_id": "a", "title": "Title", "text": "text"}',
        '{"_id": 2, "text": " no title "}',
        '{"_id": "c", "title": "only", "text": ""}',
    ]
    queries = ['{"_id": "q", "text": "x"}', "", '{"_id": "none", "text": "y"}', '{"_id": "zero", "text": "z"}']
    qrels = ["query-id\tcorpus-id\tscore", "q\t2\t1", "q\tc\t0", "zero\ta\t0"]
    data = read_eval_data(write_beir(tmp_path, passages, queries, qrels))
    assert data.passages == {"a": "Title text", "2": "no title", "c": "only"}
    assert data.queries == {"q": "x"} and data.queries_left_out == 2
    assert data.qrels == {"q": {"2": 1, "c": 0}} and data.relevant_pairs == 1


GOOD = '{"_id": "d0", "text": "x"}'
HEADER = "query-id\tcorpus-id\tscore"


@pytest.mark.parametrize(
    "replaced, place, what",
    [
        ({"passages": [GOOD, '{"_id": "d1", "text": '], }, "corpus.jsonl:2:", "broken JSON"),
        ({"passages": [GOOD, "[1]"]}, "corpus.jsonl:2:", "not a JSON object"),
        ({"passages": [GOOD, '{"text": "x"}']}, "corpus.jsonl:2:", "has no _id"),
        ({"passages": [GOOD, "", GOOD]}, "corpus.jsonl:3:", "already used on line 1"),
        ({"passages": [GOOD, '{"_id": "d1", "title": " ", "text": ""}']}, "corpus.jsonl:2:", "missing or empty"),
        ({"passages": [GOOD, '{"_id": "d1", "text": ["x"]}']}, "corpus.jsonl:2:", "text is list"),
        ({"passages": [""]}, "corpus.jsonl:1:", "has no rows"),
        ({"queries": ['{"_id": "q1", "text": ""}']}, "queries.jsonl:1:", "missing or empty"),
        ({"queries": ['{"_id": "q1"}']}, "queries.jsonl:1:", "missing or empty"),
        ({"queries": ['{"_id": "q\\t1", "text": "x"}']}, "queries.jsonl:1:", "holds a tab"),
        ({"qrels": ["q1\td0\t1"]}, "test.tsv:1:", "not the header"),
        ({"qrels": [""]}, "test.tsv:1:", "is empty"),
        ({"qrels": [HEADER, "q1 d0 1"]}, "test.tsv:2:", "has 1 fields, not 3"),
        ({"qrels": [HEADER, "q1\td0\tyes"]}, "test.tsv:2:", "no whole number"),
        ({"qrels": [HEADER, "q1\td0\t1", "q9\td0\t1"]}, "test.tsv:3:", "queries.jsonl lacks"),
        ({"qrels": [HEADER, "q1\td99\t1"]}, "test.tsv:2:", "corpus.jsonl lacks"),
        ({"qrels": [HEADER, "q1\td0\t1", "q1\td0\t0"]}, "test.tsv:3:", "scored otherwise"),
        ({"qrels": [HEADER, "q1\td0\t0"]}, "test.tsv:", "no query has a relevant passage"),
    ],
)  # fmt: skip
def test_an_error_names_file_line_and_fix(tmp_path, replaced, place, what):
    with pytest.raises(KitError) as error:
        read_eval_data(write_beir(tmp_path, **replaced))
    line = next(line for line in str(error.value).splitlines() if place in line)
    assert what in line and ";" in line  # the fix stands after the semicolon


def test_bytes_that_are_not_utf8_are_told_with_their_line(tmp_path):
    folder = write_beir(tmp_path)
    (folder / "corpus.jsonl").write_bytes(GOOD.encode() + b'\n{"_id": "d1", "text": "\xff"}\n')
    with pytest.raises(KitError, match=r"corpus.jsonl:2: is not UTF-8"):
        read_eval_data(folder)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(KitError, match="does not exist"):
        read_eval_data(tmp_path / "nothing")
    folder = write_beir(tmp_path)
    shutil.rmtree(folder / "qrels")
    with pytest.raises(KitError, match="has no qrels/test.tsv"):
        read_eval_data(folder)


# ---- scores: equal to FlagEmbedding's ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def encoded(model_folder):
    """FlagEmbedding's model, and the vectors of a few texts of different lengths."""
    encoder = Encoder(find_model("m", str(model_folder)), EncodeSettings(batch_size=2, query_max_len=64))
    texts = ["river", " ".join(WORDS), "stone stone stone cloud", "apple unknown words river winter"]
    yield encoder.flag_model, encoder.queries(texts[:3]), encoder.passages(texts), encoder.vocabulary
    encoder.close()


def test_sparse_equals_flagembedding(encoded):
    flag_model, queries, passages, vocabulary = encoded
    ours = scores.sparse_scores(*(scores.lexical_matrix(v.lexical, vocabulary) for v in (queries, passages)))
    theirs = flag_model.compute_lexical_matching_score(
        [dict(w) for w in queries.lexical], [dict(w) for w in passages.lexical]
    )
    assert np.abs(theirs).max() > 0
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_colbert_equals_flagembedding(encoded, monkeypatch):
    flag_model, queries, passages, _ = encoded
    # A head of 8 outputs on 16 hidden: FlagEmbedding is told the size that the file has.
    assert queries.colbert[0].shape[1] == 8
    theirs = [[float(flag_model.colbert_score(q, p)) for p in passages.colbert] for q in queries.colbert]
    np.testing.assert_allclose(scores.colbert_scores(queries.colbert, passages.colbert), theirs, atol=1e-5)
    monkeypatch.setattr(scores, "TOKEN_PAIRS", 1)  # one query token at a time
    np.testing.assert_allclose(scores.colbert_scores(queries.colbert, passages.colbert), theirs, atol=1e-5)


def test_colbert_padding_loses_to_negative_similarities():
    query = [np.array([[1.0, 0.0]], dtype=np.float32)]
    passages = [np.array([[-0.5, 0.0]], dtype=np.float32), np.full((3, 2), -0.25, dtype=np.float32)]
    np.testing.assert_allclose(scores.colbert_scores(query, passages), [[-0.5, -0.25]])


def random_vectors(count: int, seed: int) -> Vectors:
    random = np.random.default_rng(seed)
    lexical = [{str(t): float(random.random()) for t in random.choice(9, 2, replace=False)} for _ in range(count)]
    colbert = [random.normal(size=(random.integers(1, 5), 4)).astype(np.float32) for _ in range(count)]
    return Vectors(random.normal(size=(count, 6)).astype(np.float32), lexical, colbert)


def part(vectors: Vectors, start: int, stop: int) -> Vectors:
    return Vectors(vectors.dense[start:stop], vectors.lexical[start:stop], vectors.colbert[start:stop])


def test_chunks_rank_as_the_whole_corpus_does(monkeypatch):
    monkeypatch.setattr(scores, "CANDIDATES", 7)
    queries, passages = random_vectors(5, seed=1), random_vectors(40, seed=2)
    ranker = scores.Ranker(queries, 9, "cpu")
    for start in range(0, 40, 11):
        ranker.add(part(passages, start, start + 11))
    rankings = ranker.rankings()

    dense = scores.dense_scores(queries.dense, passages.dense)
    sparse = scores.sparse_scores(scores.lexical_matrix(queries.lexical, 9), scores.lexical_matrix(passages.lexical, 9))
    colbert = scores.colbert_scores(queries.colbert, passages.colbert)
    hybrid = dense + 0.3 * sparse + colbert
    for query in range(5):
        first_dense = sorted(range(40), key=lambda p: -dense[query, p])[:7]
        first_sparse = [p for p in sorted(range(40), key=lambda p: -sparse[query, p])[:7] if sparse[query, p] > 0]
        candidates = sorted({*first_dense, *first_sparse})
        assert rankings["dense"][query] == first_dense
        assert rankings["sparse"][query] == first_sparse
        assert rankings["colbert"][query] == sorted(candidates, key=lambda p: -colbert[query, p])
        assert rankings["hybrid"][query] == sorted(candidates, key=lambda p: -hybrid[query, p])


def test_of_equal_scores_the_earlier_passage_ranks_first_also_across_chunks():
    one = np.ones((1, 2), dtype=np.float32)
    vectors = Vectors(np.repeat(one, 4, axis=0), [{"1": 1.0}] * 4, [one] * 4)
    ranker = scores.Ranker(part(vectors, 0, 1), 3, "cpu")
    ranker.add(part(vectors, 0, 2))
    ranker.add(part(vectors, 2, 4))
    assert ranker.rankings() == {name: [[0, 1, 2, 3]] for name in ("dense", "sparse", "colbert", "hybrid")}


def test_sparse_leaves_out_passages_that_share_no_token():
    one = np.ones((1, 2), dtype=np.float32)
    ranker = scores.Ranker(Vectors(one, [{"1": 1.0}], [one]), 3, "cpu")
    ranker.add(Vectors(np.repeat(one, 2, axis=0), [{"2": 1.0}, {"1": 0.5}], [one] * 2))
    assert ranker.rankings()["sparse"] == [[1]]


# ---- metrics, by hand ----------------------------------------------------------------------------------------------


def test_metrics_by_hand():
    ranked = {"q1": ["x", "a"], "q2": ["b", "x", "c"]}
    qrels = {"q1": {"a": 1}, "q2": {"b": 1, "c": 2, "x": 0}}
    gain = [1 / math.log2(3), (1 + 2 / math.log2(4)) / (2 + 1 / math.log2(3))]
    result = measure(ranked, qrels)
    assert result == pytest.approx({"nDCG@10": sum(gain) / 2, "MRR@10": 0.75, "recall@10": 1.0, "recall@100": 1.0})


def test_cutoffs_and_queries_that_found_nothing():
    others = [f"x{i}" for i in range(200)]
    ranked = {"eleventh": others[:10] + ["a"], "tenth": others[:9] + ["a"], "late": others[:100] + ["a"], "none": []}
    result = measure(ranked, {query: {"a": 1} for query in ranked})
    assert result == pytest.approx(
        {"nDCG@10": 1 / math.log2(11) / 4, "MRR@10": 0.1 / 4, "recall@10": 1 / 4, "recall@100": 2 / 4}
    )


def test_the_given_order_counts_whatever_the_ids_are():
    for ids in (["a", "b", "c"], ["c", "b", "a"]):
        assert measure({"q": ids}, {"q": {"b": 1}})["MRR@10"] == 0.5


# ---- models, devices, words ----------------------------------------------------------------------------------------


def test_a_path_without_a_model_gets_a_sentence(tmp_path):
    with pytest.raises(KitError, match="no model at"):
        find_model("tuned", str(tmp_path / "run"))
    with pytest.raises(KitError, match="no config.json"):
        find_model("tuned", str(tmp_path))
    with pytest.raises(KitError, match="is not NAME=PATH"):
        parse_models(["outputs/run"])
    with pytest.raises(KitError, match="twice"):
        parse_models(["a=x", "a=y"])
    assert parse_models(["base=BAAI/bge-m3", "tuned=a=b c"]) == {"base": "BAAI/bge-m3", "tuned": "a=b c"}


def test_a_hub_model_is_downloaded_once_and_its_heads_are_looked_at(model_folder, monkeypatch):
    asked = []

    def download(**arguments):
        asked.append(arguments)
        return str(model_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    found = find_model("base", "BAAI/bge-m3", cache_dir="cache")
    assert found.folder == model_folder and found.colbert_size == 8
    assert [(a["repo_id"], a["cache_dir"]) for a in asked] == [("BAAI/bge-m3", "cache")]


def test_half_precision_on_a_cpu_becomes_fp32_with_the_reason():
    assert choose_precision("auto", "cpu")[0] == "fp32" and choose_precision("auto", "cuda:0")[0] == "fp16"
    precision, reason = choose_precision("fp16", "cpu")
    assert precision == "fp32" and "fp16 was asked for" in reason
    with pytest.raises(KitError, match="not known"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(KitError, match="no CUDA GPU"):
            choose_device("cuda:0")


def test_a_model_that_gives_nan_is_refused(model_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = Path(shutil.copytree(model_folder, tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][:] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    encoder = Encoder(find_model("tuned", str(broken)), EncodeSettings())
    with pytest.raises(KitError, match="NaN"):
        encoder.queries(["river"])


def result(*values: float) -> dict:
    """What metrics.json holds when each model has the same value everywhere."""
    names = ["base", "tuned"][: len(values)]
    kinds = ("dense", "sparse", "colbert", "hybrid")

    def row(value: float) -> dict:
        return dict.fromkeys(("nDCG@10", "MRR@10", "recall@10", "recall@100"), value)

    models = {name: {kind: row(v) for kind in kinds} | {"notes": []} for name, v in zip(names, values, strict=True)}
    metrics = {"models": models, "queries": 3, "passages": 12, "relevant_pairs": 3}
    return metrics | ({"change": {kind: row(values[-1] - values[0]) for kind in kinds}} if len(values) > 1 else {})


def test_the_sentence_says_better_worse_and_unchanged():
    assert verdict(result(0.5124, 0.634)) == "nDCG@10 of the hybrid score went from 0.512 to 0.634 (+0.122)."
    assert verdict(result(0.512, 0.5)) == (
        "The tuned model is WORSE than the base by 0.012: "
        "nDCG@10 of the hybrid score went from 0.512 to 0.500 (-0.012)."
    )
    assert verdict(result(0.5, 0.5001)) == "nDCG@10 of the hybrid score stayed at 0.500."
    assert verdict(result(0.5)) == "nDCG@10 of the hybrid score of base is 0.500."


def test_the_changes_shown_add_up():
    # 0.4561 to 0.4655 is +0.0094, but a reader who sees 0.456 and 0.466 (rounded) expects +0.010.
    assert "0.456    0.466   +0.010" in render_table(result(0.4561, 0.4656))


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_command_writes_a_table_a_sentence_and_metrics(model_folder, tmp_path, capsys):
    queries = [json.dumps({"_id": i, "text": t}) for i, t in QUERIES.items()] + ['{"_id": "q4", "text": "x"}']
    eval_data = write_beir(tmp_path / "eval [ä]", queries=queries)
    output = tmp_path / "out 'put'"
    models = ["--models", f"base={model_folder}", f"tuned={model_folder}"]
    places = ["--eval_data", str(eval_data), "--output_dir", str(output)]
    code = main(["evaluate", *models, *places, "--device", "cpu", "--batch_size", "4", "--passage_max_len", "512"])
    captured = capsys.readouterr()
    assert code == 0, captured.err

    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    assert not list(output.glob("*.tmp"))
    assert (metrics["queries"], metrics["queries_left_out"], metrics["passages"]) == (3, 1, 12)
    assert metrics["relevant_pairs"] == 3 and metrics["eval_data"] == str(eval_data)
    assert metrics["settings"]["precision"] == "fp32" and metrics["settings"]["device"] == "cpu"
    assert metrics["settings"]["hybrid_weights"] == {"dense": 1.0, "sparse": 0.3, "colbert": 1.0}
    assert list(metrics["models"]) == ["base", "tuned"]
    base = metrics["models"]["base"]
    assert base["path"] == str(model_folder) and base["seconds"] >= 0
    for score in ("dense", "sparse", "colbert", "hybrid"):
        assert set(base[score]) == {"nDCG@10", "MRR@10", "recall@10", "recall@100"}
        assert metrics["change"][score] == dict.fromkeys(base[score], 0.0)
    assert base["dense"]["recall@100"] == 1.0  # all twelve passages are ranked
    # The model has 66 - 2 positions, which the user hears of.
    assert base["notes"] == ["base has positions for 64 tokens: query_max_len 512 was cut to 64.",
                             "base has positions for 64 tokens: passage_max_len 512 was cut to 64."]  # fmt: skip

    lines = captured.out.rstrip("\n").split("\n")
    assert lines[0] == "3 queries, 12 passages, 3 relevant pairs"
    assert max(map(len, lines[:20])) <= 100
    assert lines[-1].startswith("nDCG@10 of the hybrid score stayed at")
    assert "no relevant passage: 1." in captured.err and "base: encoding passages 1 to 12" in captured.err


@pytest.mark.parametrize("missing", ["colbert_linear.pt", "sparse_linear.pt"])
def test_with_a_head_missing_only_dense_is_scored_and_that_is_said(model_folder, tmp_path, capsys, missing):
    headless = Path(shutil.copytree(model_folder, tmp_path / "headless"))
    (headless / missing).unlink()
    models = ["--models", f"base={model_folder}", f"tuned={headless}"]
    places = ["--eval_data", str(write_beir(tmp_path / "eval")), "--output_dir", str(tmp_path / "out")]
    assert main(["evaluate", *models, *places, "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    tuned = metrics["models"]["tuned"]
    for score in ("sparse", "colbert", "hybrid"):
        assert tuned[score]["scores"] is None and missing in tuned[score]["reason"]
    assert tuned["dense"] == metrics["models"]["base"]["dense"] and list(metrics["change"]) == ["dense"]
    sentence = "tuned is scored by dense vectors only"
    assert sentence in captured.out and sentence in captured.err
    assert "of the dense score" in captured.out.splitlines()[-1]
    row = next(line for line in captured.out.splitlines() if line.startswith("hybrid"))
    assert row.split()[-2:] == ["-", "-"]


def test_errors_end_the_command_with_a_sentence_and_write_nothing(tmp_path, capsys):
    places = ["--eval_data", str(tmp_path / "none"), "--output_dir", str(tmp_path / "out")]
    assert main(["evaluate", "--models", "base=x", *places]) == 1
    captured = capsys.readouterr()
    assert "does not exist" in captured.err and captured.out == ""
    assert not (tmp_path / "out").exists()


def test_stdout_holds_the_table_alone_and_of_equal_passages_the_last_id_ranks_first(model_folder, tmp_path):
    passages = [json.dumps({"_id": key, "text": "river stone"}) for key in ("b", "c", "a")]
    queries = ['{"_id": "q", "text": "river"}']
    eval_data = write_beir(tmp_path / "eval", passages, queries, ["query-id\tcorpus-id\tscore", "q\tb\t1"])
    command = [sys.executable, "-m", "m3kit", "evaluate", "--models", f"base={model_folder}", "--device", "cpu"]
    # One text a batch: equal texts get equal vectors to the last bit.
    command += ["--batch_size", "1", "--eval_data", str(eval_data), "--output_dir", str(tmp_path / "out")]
    # A new process, as libraries tie their logs to the stdout that they find when they are imported.
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1 queries, 3 passages, 1 relevant pairs\n")
    base = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))["models"]["base"]
    assert [base[score]["MRR@10"] for score in ("dense", "sparse", "colbert", "hybrid")] == [0.5] * 4
    assert done.stdout.endswith("nDCG@10 of the hybrid score of base is 0.631.\n")
