"""README.md: a card that the Hub takes, that hides nothing, and that never replaces one of the user's own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from report_helpers import make_log, make_metrics, make_run, write_run

from m3kit.__main__ import main
from m3kit.report.card import MARK, make_card
from m3kit.report.record import read_record
from m3kit.report.usage import make_usage


def card_of(folder: Path) -> str:
    return make_card(read_record(folder))


def front(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_hub_reads_the_front_matter(tmp_path):
    folder = write_run(tmp_path / "mine")
    (folder / "README.md").write_text(card_of(folder), encoding="utf-8")
    loaded = ModelCard.load(folder / "README.md")
    data = loaded.data
    assert data.license == "mit" and data.base_model == "BAAI/bge-m3" and data.model_name == "mine"
    assert data.library_name == "sentence-transformers" and data.pipeline_tag == "sentence-similarity"
    assert "sentence-transformers" in data.tags and data.language is None
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    tuned, general = metrics["models"]["tuned"], metrics["general"]["models"]["tuned"]
    found = {(result.dataset_name, result.metric_name): result.metric_value for result in data.eval_results}
    names = {"dense": "Dense", "sparse": "Sparse", "colbert": "ColBERT", "hybrid": "Hybrid"}
    wanted = {
        (dataset, f"{names[score]} {metric}"): value
        for dataset, model in (("example_data/eval", tuned), ("general", general))
        for score in names
        for metric, value in model[score].items()
    }
    wanted |= {
        ("example_data/eval", metric): value for task in tuned["tasks"].values() for metric, value in task.items()
    }
    assert found == wanted
    # The Hub's own form, by another reader.
    assert front(str(loaded))["model-index"][0]["name"] == "mine"


@pytest.mark.parametrize("base", ["outputs/first", "/srv/models/base", "./base/model", "starter"])
def test_a_base_that_is_a_folder_is_neither_named_to_the_hub_nor_given_its_licence(tmp_path, monkeypatch, base):
    monkeypatch.chdir(tmp_path)
    Path("outputs").mkdir()
    metrics = make_metrics()
    metrics["models"]["base"]["path"] = base
    found = front(card_of(write_run(tmp_path / "run", metrics=metrics, run=make_run(base=base))))
    assert "base_model" not in found and "license" not in found


def test_an_unknown_base_of_the_hub_is_named_without_a_licence(tmp_path):
    metrics = make_metrics()
    metrics["models"]["base"]["path"] = "somebody/model"
    found = front(card_of(write_run(tmp_path / "run", metrics=metrics)))
    assert found["base_model"] == "somebody/model" and "license" not in found


def test_the_card_tells_verdict_figures_data_training_use_and_limits(tmp_path):
    card = card_of(write_run(tmp_path / "run"))
    metrics = make_metrics()
    told = " ".join(card.split())
    assert "**Better.** " + metrics["verdict"] in told
    tuned = metrics["models"]["tuned"]["hybrid"]["nDCG@10"]
    assert re.search(
        rf"^\| Hybrid \| nDCG@10 \| 0\.\d+ \| {tuned:.3f} \| \+0\.\d+ \| .* to .* \| .* \| better \|$", card, re.M
    )
    assert "| BM25 | nDCG@10 |" in card and "| Clustering | V-measure |" in card and "### General text" in card
    assert "| retrieval/train.jsonl | retrieval | 1,218 | 1,190 | 28 |" in card and "| Learning rate | 1e-05 |" in card
    assert "hybrid = 1.0 \\* dense" not in card and "hybrid = 1.0 * dense + 0.3 * sparse + 1.0 * colbert" in card
    assert "FlagEmbedding 1.4.2, torch 2.13.0" in card
    assert "were cut in training and evaluation" in card and "do not compare between models" in told
    # Nothing of where it lies on somebody's disk, and no secret.
    assert "somebody" not in card and str(tmp_path) not in card and "hf_secret" not in card


def test_tables_are_whole(tmp_path):
    for number, metrics in enumerate((make_metrics(), make_metrics(("base",)), make_metrics(("a", "b_c", "d")))):
        card = card_of(write_run(tmp_path / str(number), metrics=metrics))
        body = card.split("---\n", 2)[2]
        for table in re.findall(r"(?:^\|.*\n)+", body, re.M):
            rows = table.splitlines()
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1, table
            assert re.fullmatch(r"\|(-+:?\|)+", rows[1]), table
        assert "\n\n\n" not in body


def test_what_was_not_measured_is_said(tmp_path):
    card = card_of(write_run(tmp_path / "run", metrics=None, run=make_run("stopped"), log=make_log(41, 0)))
    assert "**Not evaluated.**" in card and "It was not evaluated" in card
    assert "The training stopped before its end" in card
    assert "model-index" not in front(card)
    assert "was not measured" in card_of(write_run(tmp_path / "other", metrics=make_metrics(general=False)))


def test_names_and_problems_of_users_do_not_become_markdown(tmp_path):
    metrics = make_metrics(("base|x", "<b>*tuned*_"))
    card = card_of(write_run(tmp_path / "# a [name](x) <script>", metrics=metrics))
    body = card.split("---\n", 2)[2].replace(MARK, "")
    assert not re.search(r"(?<!\\)<(script|b)>", body) and "[name](x)" not in body
    assert r"base\|x" in body and r"\<b\>\*tuned\*\_" in body


# ---- files ---------------------------------------------------------------------------------------------------------


def test_a_card_of_the_users_own_is_kept(tmp_path, capsys):
    folder = write_run(tmp_path / "run", log=None, metrics=None)
    (folder / "README.md").write_text("# my own words\n")
    assert main(["report", str(folder)]) == 0
    assert (folder / "README.md").read_text() == "# my own words\n"
    assert MARK in (folder / "README.kit.md").read_text("utf-8")
    told = capsys.readouterr().err
    assert "README.md there is your own and stays" in told and str(folder / "README.kit.md") in told
    assert "README.kit.md" in (folder / "report.html").read_text("utf-8")


def test_the_kits_own_card_is_written_anew_until_the_user_takes_it_over(tmp_path):
    folder = write_run(tmp_path / "run", log=None, metrics=None)
    main(["report", str(folder)])
    card = folder / "README.md"
    first = card.read_text("utf-8")
    card.write_text(first + "\nold\n", encoding="utf-8")
    main(["report", str(folder)])
    assert card.read_text("utf-8") == first and not (folder / "README.kit.md").exists()
    taken = first.replace(MARK, "")
    card.write_text(taken, encoding="utf-8")
    main(["report", str(folder)])
    assert card.read_text("utf-8") == taken


# ---- the snippets --------------------------------------------------------------------------------------------------


def test_snippets_are_python_with_everything_the_model_was_trained_with(tmp_path):
    metrics = make_metrics()
    settings = {
        "pooling_method": "mean",
        "normalize_embeddings": False,
        "query_instruction_for_retrieval": 'Frage "kurz": \\ ',
    }
    metrics["models"]["tuned"]["settings"] |= settings
    metrics["models"]["tuned"]["hybrid_weights"] = {"dense": 0.4, "sparse": 0.1, "colbert": 0.5}
    usage = make_usage(read_record(write_run(tmp_path / "run", metrics=metrics)), 'a "path"/ö')
    for code in (usage.flag_embedding, usage.sentence_transformers):
        compile(code, "snippet", "exec")
        assert r'"Frage \"kurz\": \\ "' in code and r'"a \"path\"/ö"' in code
    assert 'pooling_method="mean"' in usage.flag_embedding and "normalize_embeddings=False" in usage.flag_embedding
    assert "hybrid = 0.4 * dense + 0.1 * sparse + 0.5 * colbert" in usage.flag_embedding


@pytest.mark.parametrize("heads", [True, False])
def test_snippets_run(starter, tmp_path, monkeypatch, capsys, heads):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    record = read_record(write_run(tmp_path / "run", metrics=make_metrics(headless=() if heads else ("tuned",))))
    usage = make_usage(record, str(starter))
    exec(usage.flag_embedding, {})
    exec(usage.sentence_transformers, {})
    printed = capsys.readouterr().out
    assert "[[" in printed
