"""What the report promises: verdict and figures as they were measured, what is missing said, bad files named."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
from dataclasses import replace
from random import Random

import pytest
from conftest import mostly_slow
from report_helpers import make_log, make_manifest, make_run, write_run
from report_metrics import make_metrics
from report_reading import report, words

from m3kit.__main__ import main
from m3kit.errors import KitError
from m3kit.report.command import make_report
from m3kit.report.page import OUTCOMES

# ---- figures -------------------------------------------------------------------------------------------------------

SHAPES = {
    "two models": make_metrics(),
    "one model": make_metrics(("base",)),
    "three models": make_metrics(("base", "first", "second.best")),
    "a model without heads": make_metrics(headless=("tuned",)),
    "dense alone": make_metrics(headless=("base", "tuned")),
    "tasks only": make_metrics(retrieval=False),
    "retrieval only": make_metrics(tasks=False, general=False),
    "worse": make_metrics(gain=-0.1),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_figure_of_metrics_json_stands_in_the_page(tmp_path, shape):
    metrics = SHAPES[shape]
    page = words(write_run(tmp_path / "run", metrics=metrics))
    parts = [metrics, metrics.general] if metrics.general else [metrics]
    for model in (model for part in parts for model in part.models.values()):
        for figures in [model.figures(score) for score in ("dense", "sparse", "colbert", "hybrid")]:
            assert all(f" {value:.3f}" in page.said for value in figures.values())
        assert all(f" {value:.3f}" in page.said for task in model.tasks.values() for value in task.values())
    for served in metrics.serving.models.values() if metrics.serving else ():
        assert f"{served.figures['nDCG@10']:.3f}" in page.said and served.says in page.said
    assert all(line in page.said for line in metrics.verdict.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_the_page_is_small_and_has_its_plots(tmp_path, shape):
    folder = write_run(tmp_path / "run", metrics=SHAPES[shape], log=make_log(1300))
    page = report(folder)
    assert page.all("svg") and len(page.all("table")) <= 8
    assert (folder / "report.html").stat().st_size < 200_000
    assert "Each point is the mean of 7 logged steps." in page.said


def test_of_many_evaluations_each_is_drawn(tmp_path):
    log = make_log(1300, evaluations=260)
    page = report(write_run(tmp_path / "run", metrics=SHAPES["two models"], log=log))
    dense = [row["eval_dense_nDCG@10"] for row in log if "eval_dense_nDCG@10" in row]
    spoken = [svg["aria-label"] for svg in page.all("svg")]
    assert any(f"Dense from {dense[0]:.3f} to {dense[-1]:.3f}" in one for one in spoken), spoken
    assert page.said.count("Each point is the mean") == 1  # of the loss


def test_every_number_of_the_verdict_stands_in_the_tables(whole_run, whole_page):
    verdict = json.loads((whole_run / "metrics.json").read_text("utf-8"))["verdict"]
    told = tables(whole_page)
    for number in re.findall(r"\d\.\d+|\d+ of \d+|for \d+", verdict):
        assert number.removeprefix("for ") in told, number
    assert re.search(r"Hybrid\s+55 of 83\s+64 of 83\s+\+9", told)


def tables(page) -> str:
    return re.sub(r"<[^>]+>", " ", "".join(re.findall(r"<table>.*?</table>", page.text, re.DOTALL)))


def test_changes_shown_add_up(whole_page):
    rows = re.findall(r"(0\.\d{3}) (0\.\d{3}) ([+−]0\.\d{3})", " ".join(tables(whole_page).split()))
    assert len(rows) > 20
    for before, after, change in rows:
        assert round(float(after) - float(before), 3) == float(change.replace("−", "-"))


@pytest.mark.parametrize("outcome", ["better", "worse", "same", "mixed", "keyword search", "single"])
def test_the_verdict_is_the_evaluations_own_and_green_only_where_it_is_better(tmp_path, outcome):
    metrics = replace(make_metrics(), outcome=outcome, verdict="It is so.\nDo this.", judged_on="By another half.")
    page = words(write_run(tmp_path / "run", metrics=metrics))
    told = page.text[page.text.index('<section id="verdict"') :].split("</section>")[0]
    assert f'class="box {outcome.replace(" ", "-")}"' in told
    said = " ".join(re.sub("<[^>]+>", " ", told).split())
    assert said == f"{' '.join(OUTCOMES[outcome])} It is so. Do this. By another half."
    assert page.headings[1] == (2, " ".join(OUTCOMES[outcome]))


def test_five_queries_are_shown_with_what_stood_first(whole_page):
    told = whole_page.said.split("Five queries")[1]
    assert told.count("Rank of the right passage") == 5
    assert "Before ✗ not right Bags are weighed." in told and "Rank of the right passage: 57 → 1" in told
    assert whole_page.said.index("Five queries") < whole_page.said.index("Before and after, by score")


def test_data_problems_settings_time_use_and_words_are_told(whole_page):
    for told in (
        "25 set aside (held out for evaluation)",
        "warning, query-is-passage, 5",
        "learning_rate 1e-05",
        "FlagEmbedding 1.4.2",
        "Tokens a second, median",
        "Evaluating tuned",
        "Trained in 4 min 4 s, of which 6.0 s evaluating",
        "scores = dense + 0.3 * sparse",
        "model.max_seq_length = 128",
        "Plain keyword search",
        "Held out for evaluation, and not trained on: 50 of retrieval.",
        "kept: step 90",
    ):
        assert told in whole_page.said, told
    assert "hf_secret" not in whole_page.text and "toy" not in whole_page.said


@pytest.mark.parametrize("base", ["/somewhere/cache/starter", "starter"])
def test_a_run_from_the_starter_model_is_a_toy(tmp_path, monkeypatch, base):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "starter").mkdir()
    (tmp_path / "starter" / "starter.json").write_text("{}")
    page = words(write_run(tmp_path / "run", run=make_run(base=base)))
    assert "This model is a toy" in page.said and "say nothing about bge-m3" in page.said


def test_a_model_without_heads_is_used_by_dense_alone(tmp_path):
    page = words(write_run(tmp_path / "run", metrics=make_metrics(headless=("tuned",))))
    assert "tuned has no sparse_linear.pt" in page.said and "lexical_weights" not in page.said


# ---- what is missing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "piece, said",
    [
        ("metrics", "nobody knows whether"),
        ("run", "with which settings and versions the model was trained is not known"),
        ("log", "no curves of loss"),
        ("manifest", "what the model was trained on"),
    ],
)
def test_a_missing_piece_is_named_with_what_it_costs(tmp_path, piece, said):
    page = words(write_run(tmp_path / "run", **{piece: None}))
    assert "What is missing here" in page.said and said in page.said


def test_a_whole_run_misses_nothing(whole_page):
    assert "What is missing" not in whole_page.said


def test_training_data_without_problems_lacks_nothing(tmp_path):
    page = words(write_run(tmp_path / "run", manifest=make_manifest() | {"problems": []}))
    assert "What is missing" not in page.said and "What the checks found" not in page.said


@pytest.mark.parametrize("piece", mostly_slow(["log", "metrics", "run", "manifest"]))
def test_one_piece_alone_makes_a_report(tmp_path, piece):
    none = dict.fromkeys(("metrics", "run", "log", "manifest"))
    none.pop(piece)
    page = report(write_run(tmp_path / "run", **none))
    assert page.headings[0] == (1, "run")


def test_a_stopped_run_says_why_and_what_to_do(tmp_path):
    page = report(write_run(tmp_path / "run", metrics=None, run=make_run("stopped"), log=make_log(41, 0)))
    assert "The training stopped before its end" in page.said
    assert "the loss is not finite (nan) after step 41." in page.said
    assert "It had logged 41 steps. Run the same command again" in page.said
    assert "Went on from step 30" in page.said and "precision bf16 instead of fp16" in page.said
    assert page.headings[1] == (2, "? Not evaluated")


def test_a_killed_run_may_leave_half_a_line_and_figures_that_are_no_numbers(tmp_path):
    log = make_log(70, 0)
    log[3]["loss_dense"] = float("nan")
    folder = write_run(tmp_path / "run", run=make_run("running"), log=log, metrics=None)
    with (folder / "train_log.jsonl").open("a") as file:
        file.write('{"step": 121, "lo')
    page = report(folder)
    assert "left out: 1." in page.said and "still running, or it was killed" in page.said


# ---- damaged files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file, content",
    [
        ("metrics.json", "{"),
        ("metrics.json", "[]"),
        ("metrics.json", '{"models": {}}'),
        ("metrics.json", '{"models": {"base": {"dense": {"scores": null, "reason": "of an older kit"}}}}'),
        ("run.json", '{"status": 3}'),
        ("train_log.jsonl", "nothing\n"),
        ("prepared/manifest.json", b"\xff\xfe"),
    ],
)
def test_a_broken_file_is_named_with_the_cure(tmp_path, file, content, capsys):
    folder = write_run(tmp_path / "run")
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["report", str(folder)]) == 1
    told = capsys.readouterr().err
    assert f"{folder / file} is damaged" in told
    assert ("python -m m3kit evaluate --output_dir" if file == "metrics.json" else "delete it") in told
    assert not (folder / "report.html").exists()


def test_a_folder_in_the_place_of_the_card_stays(tmp_path, capsys):
    folder = write_run(tmp_path / "run")
    (folder / "README.md").mkdir()
    assert main(["report", str(folder)]) == 0
    assert "README.md there is your own and stays. The model card is" in capsys.readouterr().err


def test_rows_of_the_training_data_are_told_of_where_the_card_shows_some(tmp_path, capsys):
    folder = write_run(tmp_path / "run")
    assert main(["report", str(folder)]) == 0
    shown = "| query | right | not right |" in (folder / "README.md").read_text("utf-8")
    assert ("it shows some rows of the training data" in capsys.readouterr().err) == shown
    shutil.rmtree(folder / "prepared", ignore_errors=True)
    assert main(["report", str(folder)]) == 0
    assert "rows of the training data" not in capsys.readouterr().err


def test_the_cure_can_be_pasted_whatever_the_folder_is_called(tmp_path, capsys):
    folder = write_run(tmp_path / "my 'run'")
    (folder / "metrics.json").write_text("{")
    assert main(["report", str(folder)]) == 1
    assert capsys.readouterr().err.endswith(f" --output_dir {shlex.quote(str(folder))}\n")


def places(value, *path):
    """Of everything in a JSON value but itself."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(inner, *path, key)


@pytest.mark.parametrize("seed", mostly_slow(range(60), 12))
def test_whatever_is_wrong_in_the_files_there_is_a_page_or_a_sentence(tmp_path, seed):
    random = Random(seed)
    pieces = {"metrics": make_metrics(), "run": make_run("stopped")}
    pieces = {name: json.loads(json.dumps(dataclasses.asdict(made))) for name, made in pieces.items()}
    pieces |= {"manifest": make_manifest(), "log": make_log(12)}
    for _ in range(8):
        piece = random.choice(["metrics", "metrics", *pieces])
        # As likely near the top as deep within.
        depth = random.randint(1, 7)
        broken = json.loads(json.dumps(pieces[piece]))
        *path, last = random.choice([path for path in places(broken) if len(path) <= depth])
        inner = broken
        for key in path:
            inner = inner[key]
        other = random.choice(["deleted", "<x>", 7, -0.5, None, True, [], {}])
        if other == "deleted":
            del inner[last]
        else:
            inner[last] = other
        try:
            assert words(write_run(tmp_path / "run", **pieces | {piece: broken})).headings[0] == (1, "run")
        except KitError as error:
            assert "is damaged" in str(error)


def test_nothing_at_all_is_an_error_with_the_next_command(tmp_path):
    with pytest.raises(KitError, match="nothing to report.*evaluate"):
        make_report(tmp_path)
    with pytest.raises(KitError, match="no folder"):
        make_report(tmp_path / "nowhere")


# ---- files and words -----------------------------------------------------------------------------------------------


def test_plots_are_files_too_and_nothing_half_written_stays(whole_run, whole_page):
    drawn = [attributes["id"].removeprefix("plot-") for attributes in whole_page.all("figure")]
    assert sorted(drawn) == ["evaluation", "general", "loss", "scores", "tasks"]
    files = {path.name for path in (whole_run / "plots").iterdir()}
    assert files == {f"{name}.{kind}" for name in drawn for kind in ("svg", "png")}
    assert (whole_run / "plots" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert not [path for path in whole_run.rglob("*.tmp")]


@pytest.mark.slow
def test_plots_of_an_earlier_report_go(tmp_path):
    folder = write_run(tmp_path / "run")
    make_report(folder)
    (folder / "plots" / "mine.svg").write_text("kept")
    (folder / "train_log.jsonl").unlink()
    make_report(folder)
    left = {path.name for path in (folder / "plots").glob("*.svg")}
    assert left == {"mine.svg", "scores.svg", "tasks.svg", "general.svg"}


@pytest.mark.slow
def test_the_command_says_where_things_are(tmp_path, capsys):
    folder = write_run(tmp_path / "run")
    assert main(["report", "--output_dir", str(folder)]) == 0
    told = capsys.readouterr()
    assert told.out == f"{folder / 'report.html'}\n"
    assert str(folder / "README.md") in told.err and str(folder / "plots") in told.err
    assert main(["report", str(folder), "--json"]) == 0
    told = capsys.readouterr()
    made = json.loads(told.out)
    assert made["report"] == str(folder / "report.html") and made["card"] == str(folder / "README.md")
    assert str(folder / "plots" / "loss.svg") in made["plots"] and "first ten" in made["verdict"]
    assert told.err == ""


def test_the_command_wants_one_folder(tmp_path, capsys):
    assert main(["report"]) == 1
    assert main(["report", str(tmp_path), "--output_dir", str(tmp_path)]) == 1
    assert "m3kit report outputs/mine" in capsys.readouterr().err


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_in_is_named(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "plots").write_text("a file where the folder would be")
    with pytest.raises(KitError, match="cannot write the report"):
        make_report(folder)
