"""What the kit's training corrects: each correction beside the defect, as plain FlagEmbedding shows it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from conftest import write_jsonl
from FlagEmbedding.abc.finetune.embedder.AbsDataset import AbsEmbedderSameDatasetTrainDataset
from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Model, EncoderOnlyEmbedderM3Runner

from m3kit.data.prepare import prepare
from m3kit.data.settings import Settings
from m3kit.errors import KitError
from m3kit.training.arguments import DataArguments, ModelArguments, TrainingArguments
from m3kit.training.dataset import SameDatasetTrainDataset
from m3kit.training.model import M3Model
from m3kit.training.runner import Runner
from m3kit.training.saving import write_sentence_transformers_files

PLAIN, KIT = AbsEmbedderSameDatasetTrainDataset, SameDatasetTrainDataset


def dataset(cls, paths, tmp_path, batch_size=2, processes=1, rank=0, **arguments):
    arguments = DataArguments(train_data=list(map(str, paths)), cache_path=str(tmp_path / "cache"), **arguments)
    return cls(
        args=arguments,
        default_batch_size=batch_size,
        seed=1,
        tokenizer=None,
        process_index=rank,
        num_processes=processes,
    )


def native(count, negatives=7, **extra):
    return [
        {"query": f"q{i}", "pos": [f"p{i}"], "neg": [f"n{i}.{k}" for k in range(negatives)], **extra}
        for i in range(count)
    ]


def batches(data):
    return [data[0] for _ in range(len(data.batch_datas))]


# D1: a query without a prompt becomes "None" + query


def test_d1_queries_of_prepared_rows_do_not_begin_with_none(tmp_path):
    plain = dataset(PLAIN, [write_jsonl(tmp_path / "native.jsonl", native(4))], tmp_path)
    assert all(query.startswith("None") for queries, *_ in batches(plain) for query in queries)

    folders = prepare([tmp_path / "native.jsonl"], tmp_path / "prepared", Settings())
    for cls in (PLAIN, KIT):
        seen = [query for queries, *_ in batches(dataset(cls, folders, tmp_path)) for query in queries]
        assert sorted(seen) == ["q0", "q1", "q2", "q3"]


@pytest.mark.parametrize("some", [[], native(2, prompt="")])
def test_d1_rows_without_a_prompt_are_refused(tmp_path, some):
    path = write_jsonl(tmp_path / "native.jsonl", [*some, *native(2)])
    with pytest.raises(KitError, match='"prompt"'):
        dataset(KIT, [path], tmp_path)


# D2: an empty pos or neg fails deep inside, a string is taken as a list of characters


@pytest.mark.parametrize("broken", [{"neg": []}, {"pos": []}, {"pos": "text"}])
def test_d2_rows_that_are_no_lists_of_passages_are_refused(tmp_path, broken):
    rows = [{**row, **broken} for row in native(2, prompt="")]
    with pytest.raises(KitError, match="is no list with a passage in it"):
        dataset(KIT, [write_jsonl(tmp_path / "rows.jsonl", rows)], tmp_path)


def test_d2_a_string_and_a_missing_negative_become_lists(tmp_path):
    rows = [{"query": f"q{i}", "positive": f"passage {i}"} for i in range(4)]
    folders = prepare([write_jsonl(tmp_path / "rows.jsonl", rows)], tmp_path / "prepared", Settings())
    for cls in (PLAIN, KIT):
        for queries, passages, *_ in batches(dataset(cls, folders, tmp_path)):
            assert len(passages) == 2 * len(queries)
            assert all(passage.startswith("passage ") for passage in passages)


# D3: one negative is encoded seven times


@pytest.mark.parametrize("negative", ["a word", None])
def test_d3_no_passage_is_encoded_twice_for_a_query(tmp_path, negative):
    rows = [{"query": f"q{i}", "positive": f"p{i}", "negative": negative and f"{negative} {i}"} for i in range(4)]
    folders = prepare([write_jsonl(tmp_path / "rows.jsonl", rows)], tmp_path / "prepared", Settings())
    for cls in (PLAIN, KIT):
        for queries, passages, *_ in batches(dataset(cls, folders, tmp_path)):
            size = len(passages) // len(queries)
            for start in range(0, len(passages), size):
                assert len(set(passages[start : start + size])) == size


def test_d3_a_group_is_no_larger_than_its_rows_have_passages(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", native(2, negatives=2, prompt="", type="symmetric_sts"))
    (_, plain, *_), *_ = batches(dataset(PLAIN, [path], tmp_path, batch_size=4))
    assert len(plain) == 16
    assert len(set(plain)) == 6
    (_, passages, *_), *_ = batches(dataset(KIT, [path], tmp_path))
    assert len(passages) == len(set(passages)) == 6


# D4: the suffix no_in_batch_neg is lost by a slash


def test_d4_a_trailing_slash_keeps_no_in_batch_neg(tmp_path):
    folder = tmp_path / "clustering-no_in_batch_neg"
    write_jsonl(folder / "rows.jsonl", native(4, prompt=""))
    arguments = SimpleNamespace(**{**vars(DataArguments(train_data=[str(folder)])), "train_data": [f"{folder}/"]})
    plain = PLAIN(arguments, default_batch_size=2, seed=1, tokenizer=None)
    assert plain.no_in_batch_neg_flags == [False]
    assert dataset(KIT, [f"{folder}/"], tmp_path).no_in_batch_neg_flags == [True]


# D5: too few rows give no batch, without a word


def test_d5_a_small_set_is_trained_in_smaller_batches_and_that_is_said(tmp_path, caplog):
    path = write_jsonl(tmp_path / "rows.jsonl", native(5, prompt=""))
    assert len(dataset(PLAIN, [path], tmp_path, batch_size=4, processes=2)) == 0
    data = dataset(KIT, [path], tmp_path, batch_size=4, processes=2)
    assert [len(queries) for queries, *_ in batches(data)] == [2]
    assert "too small for batches of 4 on 2 process" in caplog.text


def test_d5_fewer_rows_than_processes_are_refused(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", native(1, prompt=""))
    with pytest.raises(KitError, match="cannot be shared by 2 processes"):
        dataset(KIT, [path], tmp_path, processes=2)


# D6: a symmetric type halves the batch, down to none; a type hides train_group_size


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_d6_the_batch_is_as_large_as_asked_for(tmp_path, batch_size):
    path = write_jsonl(tmp_path / "rows.jsonl", native(8, prompt="", type="symmetric_sts"))
    if batch_size == 1:
        with pytest.raises(ValueError, match="must not be zero"):
            dataset(PLAIN, [path], tmp_path, batch_size=1)
    data = dataset(KIT, [path], tmp_path, batch_size=batch_size)
    assert [len(queries) for queries, *_ in batches(data)] == [batch_size] * (8 // batch_size)


def test_d6_columns_of_native_rows_count_beside_a_type(tmp_path):
    rows = native(8, prompt="", type="retrieval", batch_size=4, train_group_size=3)
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    assert {len(passages) for _, passages, *_ in batches(dataset(PLAIN, [path], tmp_path))} == {4 * 8}
    assert {len(passages) for _, passages, *_ in batches(dataset(KIT, [path], tmp_path))} == {4 * 3}


def test_every_row_is_trained_once_an_epoch_by_one_of_the_processes(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", native(12, prompt=""))
    seen = []
    for rank in range(2):
        data = dataset(KIT, [path], tmp_path, processes=2, rank=rank)
        seen += [query for queries, *_ in batches(data) for query in queries]
    assert sorted(seen) == sorted(f"q{i}" for i in range(12))


def test_a_path_with_brackets_is_read(tmp_path):
    path = write_jsonl(tmp_path / "a [b]" / "rows [1].jsonl", native(2, prompt=""))
    assert len(batches(dataset(KIT, [path.parent], tmp_path))) == 1


# T2: the ensemble loss without in-batch negatives


class Heads(torch.nn.Module):
    """As much of a base model as the losses need."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=10)


def m3(cls):
    model = cls({"model": Heads(), "colbert_linear": None, "sparse_linear": None}, temperature=0.02)
    generator = torch.Generator().manual_seed(0)
    return model, [torch.randn(3, 2, generator=generator) for _ in range(3)], torch.randn(3, 4), torch.randn(6, 4)


def ensemble(model, scores, queries, passages):
    dense, sparse, colbert = scores
    return model._compute_no_in_batch_neg_loss(
        queries,
        passages,
        compute_score_func=model.ensemble_score,
        dense_scores=dense,
        sparse_scores=sparse,
        colbert_scores=colbert,
    )


def test_t2_the_ensemble_loss_without_in_batch_negatives_is_over_the_group():
    model, scores, queries, passages = m3(EncoderOnlyEmbedderM3Model)
    with pytest.raises(IndexError):
        ensemble(model, scores, queries, passages[:3])  # the passages that FlagEmbedding leaves

    model, (dense, sparse, colbert), queries, passages = m3(M3Model)
    found, loss = ensemble(model, (dense, sparse, colbert), queries, passages[:3])
    expected = dense + 0.3 * sparse + colbert
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(expected, torch.zeros(3, dtype=torch.long)))


# S4 and the model


def runner_for(model, data, output, **arguments):
    return Runner(
        model_args=ModelArguments(model_name_or_path=str(model)),
        data_args=DataArguments(train_data=[str(data)], query_max_len=32, passage_max_len=32),
        training_args=TrainingArguments(
            output_dir=str(output), use_cpu=True, report_to=[], disable_tqdm=True, unified_finetuning=True, **arguments
        ),
    )


def test_s4_a_model_with_one_head_is_refused(starter, tmp_path):
    data = write_jsonl(tmp_path / "rows.jsonl", native(4, prompt=""))
    model = tmp_path / "model"
    model.mkdir()
    for path in starter.iterdir():
        if path.name != "sparse_linear.pt":
            (model / path.name).write_bytes(path.read_bytes())
    # FlagEmbedding loads it, and the ColBERT head that is there is lost.
    heads = EncoderOnlyEmbedderM3Runner.get_model(str(model))
    kept = torch.load(model / "colbert_linear.pt")
    assert not torch.equal(heads["colbert_linear"].weight, kept["weight"])
    with pytest.raises(KitError, match=r"has no sparse_linear\.pt"):
        runner_for(model, data, tmp_path / "output")


def test_a_model_that_is_neither_folder_nor_name_is_named(tmp_path):
    data = write_jsonl(tmp_path / "rows.jsonl", native(4, prompt=""))
    with pytest.raises(KitError, match="there is no model at"):
        runner_for("./no/such/model", data, tmp_path / "output")


def test_a_run_leaves_a_model_that_loads_everywhere_alike(starter, tmp_path):
    """S5: sentence-transformers pools as the model was trained, not by mean."""
    from FlagEmbedding import BGEM3FlagModel
    from sentence_transformers import SentenceTransformer

    data = write_jsonl(tmp_path / "rows.jsonl", native(8, prompt=""))
    output = tmp_path / "output"
    runner_for(starter, data, output, num_train_epochs=1, per_device_train_batch_size=4).run()

    texts = ["Why does the moon look larger near the horizon?", "望远镜", "p1"]
    flag = BGEM3FlagModel(str(output), use_fp16=False, devices=["cpu"]).encode(texts)["dense_vecs"]
    sentence = SentenceTransformer(str(output), device="cpu").encode(texts)
    assert abs(flag - sentence).max() < 1e-4
    assert (output / "model.safetensors").stat().st_mode == (output / "config.json").stat().st_mode
    record = json.loads((output / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["steps"] == 2
    assert record["settings"]["per_device_train_batch_size"] == 4
    assert record["data"][0]["rows"] == 8


@pytest.mark.parametrize("pooling", ["cls", "mean", "last_token"])
def test_sentence_transformers_reads_the_pooling(starter, tmp_path, pooling):
    from sentence_transformers import SentenceTransformer

    for path in starter.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write_sentence_transformers_files(tmp_path, dimension=128, pooling=pooling, normalize=False, max_length=99)
    model = SentenceTransformer(str(tmp_path), device="cpu")
    assert model.max_seq_length == 99
    assert len(model) == 2
    assert model[1].pooling_mode == pooling.replace("_", "")
