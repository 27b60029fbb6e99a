"""README.md: a card that the Hub takes, that hides nothing, and that never replaces one of the user's own."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from report_helpers import make_log, make_run, write_run
from report_metrics import make_metrics

from m3kit.__main__ import main
from m3kit.records import FOUND, HEADLINE
from m3kit.report.card import MARK, make_card, sample_rows
from m3kit.report.command import make_report
from m3kit.report.page import make_view
from m3kit.report.record import read_record


def card_of(folder: Path) -> str:
    record = read_record(folder)
    return make_card(record, {}, sample_rows(record))


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
    metrics = make_metrics()
    tuned = metrics.models["tuned"]
    found = {(result.dataset_name, result.metric_name): result.metric_value for result in data.eval_results}
    names = {"dense": "Dense", "sparse": "Sparse", "colbert": "ColBERT", "hybrid": "Hybrid"}
    wanted = {f"{names[score]} {name}": tuned.figures(score)[name] for score in names for name in (HEADLINE, FOUND)}
    tasks = {"sts": "Similarity (STS)", "classification": "Classification", "clustering": "Clustering"}
    wanted |= {f"{tasks[task]} {name}": value for task in tasks for name, value in tuned.tasks[task].items()}
    assert found == {("example_data/eval", name): value for name, value in wanted.items()}
    # The Hub's own form, by another reader.
    assert front(str(loaded))["model-index"][0]["name"] == "mine"


def with_base(path: str, **more):
    metrics = make_metrics(**more)
    metrics.models["base"] = replace(metrics.models["base"], path=path)
    return metrics


@pytest.mark.parametrize("base", ["outputs/first", "/srv/models/base", "./base/model", "starter"])
def test_a_base_that_is_a_folder_is_neither_named_to_the_hub_nor_given_its_licence(tmp_path, monkeypatch, base):
    monkeypatch.chdir(tmp_path)
    Path("outputs").mkdir()
    card = card_of(write_run(tmp_path / "run", metrics=with_base(base), run=make_run(base=base)))
    assert "base_model" not in front(card) and "license" not in front(card) and "/srv" not in card


def test_an_unknown_base_of_the_hub_is_named_without_a_licence(tmp_path):
    found = front(card_of(write_run(tmp_path / "run", metrics=with_base("somebody/model"))))
    assert found["base_model"] == "somebody/model" and "license" not in found


def test_the_card_tells_verdict_figures_data_training_use_limits_and_citation(tmp_path):
    folder = write_run(tmp_path / "run")
    make_report(folder)
    card = (folder / "README.md").read_text("utf-8")
    metrics = make_metrics()
    base, tuned = (metrics.models[name].hybrid["nDCG@10"] for name in ("base", "tuned"))
    for told in (
        "**Better.** " + " ".join(metrics.verdict.splitlines()),
        "](plots/scores.png)",
        f"| Hybrid nDCG@10 | {base:.3f} | {tuned:.3f} |",
        f"has an nDCG@10 of {metrics.bm25['nDCG@10']:.3f} there",
        "| Clustering V-measure |",
        "| general text: Dense nDCG@10 |",
        "2,380 rows: 1,190 of retrieval, 1,190 of sts.",
        "| learning\\_rate | 1e-05 |",
        "scores = dense + 0.3 * sparse\n",
        "FlagEmbedding 1.4.2, torch 2.13.0",
        "are cut.",
        "eprint = {2402.03216}",
    ):
        assert told in card, told
    assert (folder / "plots" / "scores.png").is_file() and card.count("BM25, plain keyword search") == 1
    # Nothing of where it lies on somebody's disk, and no secret.
    assert "somebody" not in card and str(tmp_path) not in card and "hf_secret" not in card


def test_three_rows_of_the_training_data_are_shown_as_text(tmp_path):
    card = card_of(write_run(tmp_path / "run", metrics=None))
    rows = card.split("| query | right | not right |\n|---|---|---|\n")[1].split("\n\n")[0].splitlines()
    assert len(rows) == 3 and all(len(row) < 700 for row in rows)
    assert rows[0].startswith(r"| \<script\>alert('x')\</script\> &amp;") and r"\# a passage of two lines" in rows[0]
    assert r"\$x\$ \[name\](http\://a.b) \*\*bold\*\*" in rows[0] and "\u202e" not in rows[0]
    assert r"www\.a.example or me\@a.example" in rows[1] and r"\$1 \| 2" in rows[1]


def test_a_toy_is_called_one(tmp_path):
    card = card_of(write_run(tmp_path / "run", metrics=with_base("/kit/cache/starter")))
    assert "**This model is a toy:**" in card and "fine-tuned from starter" in card


def test_tables_are_whole(tmp_path):
    for number, metrics in enumerate((make_metrics(), make_metrics(("base",)), make_metrics(("a", "b_c", "d")))):
        card = card_of(write_run(tmp_path / str(number), metrics=metrics))
        body = card.split("---\n", 2)[2]
        tables = re.findall(r"(?:^\|.*\n)+", body, re.M)
        assert len(tables) == 3
        for table in tables:
            rows = table.splitlines()
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1, table
            assert re.fullmatch(r"\|(-+:?\|)+", rows[1]), table
        assert "\n\n\n" not in body


def test_what_was_not_measured_is_said(tmp_path):
    card = card_of(write_run(tmp_path / "run", metrics=None, run=make_run("stopped"), log=make_log(41, 0)))
    assert "**Not evaluated.**" in card and "nobody knows whether it is better" in card
    assert "The training stopped before its end" in card and "model-index" not in front(card)
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


def view(folder: Path, metrics, path: str) -> dict:
    return make_view(read_record(write_run(folder, metrics=metrics)), path)


def test_snippets_are_python_with_everything_the_model_was_trained_with(tmp_path):
    metrics = make_metrics()
    settings = {
        "pooling_method": "mean",
        "normalize_embeddings": False,
        "query_instruction_for_retrieval": 'Frage "kurz": \\ ',
    }
    metrics.models["tuned"].settings.update(settings)
    metrics.serving.models["tuned"].weights.update({"dense": 0.4, "sparse": 0.1, "colbert": 0.5})
    told = view(tmp_path / "run", metrics, 'a "path"/ö')
    for code in (told["flag_embedding"], told["sentence_transformers"]):
        compile(code, "snippet", "exec")
        assert r'"Frage \"kurz\": \\ "' in code and r'"a \"path\"/ö"' in code
    assert 'pooling_method="mean"' in told["flag_embedding"] and "normalize_embeddings=False" in told["flag_embedding"]
    assert "scores = 0.4 * dense + 0.1 * sparse + 0.5 * colbert" in told["flag_embedding"]


@pytest.mark.parametrize("heads", [True, False])
def test_snippets_run(starter, tmp_path, monkeypatch, capsys, heads):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    metrics = replace(make_metrics(headless=() if heads else ("tuned",)), serving=None)
    told = view(tmp_path / "run", metrics, str(starter))
    exec(told["flag_embedding"], {})
    exec(told["sentence_transformers"], {})
    assert ("colbert = " in told["flag_embedding"]) == heads
    assert "[[" in capsys.readouterr().out
