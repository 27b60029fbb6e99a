"""What the report promises: every figure as it was measured, what is missing said, and a page that needs nothing."""

from __future__ import annotations

import json
import re
from random import Random

import pytest
from conftest import mostly_slow
from report_helpers import make_log, make_manifest, make_metrics, make_run, write_run
from report_reading import measured_numbers, report, words

from m3kit.__main__ import main
from m3kit.errors import KitError
from m3kit.report.card import make_card
from m3kit.report.command import make_report
from m3kit.report.record import read_record

# ---- figures -------------------------------------------------------------------------------------------------------

SHAPES = {
    "two models": make_metrics(),
    "one model": make_metrics(("base",)),
    "three models": make_metrics(("base", "first", "second.best")),
    "a model without heads": make_metrics(headless=("tuned",)),
    "a base without heads": make_metrics(headless=("base",)),
    "tasks only": make_metrics(retrieval=False),
    "retrieval only": make_metrics(tasks=False, general=False) | {"queries_left_out": 0},
    "worse": make_metrics(gain=-0.1),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_figure_of_metrics_json_stands_in_the_page(tmp_path, shape):
    metrics = SHAPES[shape]
    page = words(write_run(tmp_path / "run", metrics=metrics))
    found = {place: json.loads(exact) for place, (exact, _) in page.figures.items() if place}
    wanted = measured_numbers(metrics)
    assert {place: found.get(place) for place in wanted} == wanted
    # And what is shown is that figure, rounded.
    for place, (exact, shown) in page.figures.items():
        if place.startswith(("models/", "bm25/", "general/models/")) and "seconds" not in place:
            assert shown in (f"{float(exact):.3f}", f"{float(exact):g}"), place


@pytest.mark.slow
def test_every_shape_of_metrics_json_has_its_plots(tmp_path):
    for shape, metrics in SHAPES.items():
        folder = write_run(tmp_path / shape, metrics=metrics)
        page = report(folder)
        assert page.figures == words(folder).figures and page.all("svg"), shape


def test_changes_shown_add_up(whole_page):
    for place, (_, shown) in whole_page.figures.items():
        found = re.fullmatch(r"(.*/)?comparisons/tuned/(.*)/change", place)
        if found:
            before, after = (
                whole_page.figures[f"{found[1] or ''}models/{name}/{found[2]}"][1] for name in ("base", "tuned")
            )
            said = float(shown.replace("−", "-").replace("±", ""))
            assert round(float(after) - float(before), 3) == said, place


def test_the_verdict_is_the_evaluations_own(whole_run, whole_page):
    metrics = json.loads((whole_run / "metrics.json").read_text("utf-8"))
    assert metrics["verdict"] in whole_page.said
    assert whole_page.headings[1] == (2, "▲ Better")


def test_a_worse_model_is_called_worse_and_no_success(tmp_path):
    folder = write_run(tmp_path / "run", metrics=make_metrics(gain=-0.15))
    page = words(folder)
    assert page.headings[1] == (2, "▼ Worse")
    verdict = next(found for tag, found in page.tags if tag == "section" and found.get("id") == "verdict")
    assert verdict["class"] == "verdict worse"
    card = make_card(read_record(folder))
    assert "**Worse.**" in card and "**Better" not in card


def test_what_was_lost_on_general_text_is_part_of_the_verdict(tmp_path):
    metrics = make_metrics()
    metrics["general"]["comparisons"]["tuned"]["hybrid"]["nDCG@10"]["verdict"] = "worse"
    page = words(write_run(tmp_path / "run", metrics=metrics))
    assert page.headings[1][1].endswith("Better on your text, worse on general text")


def test_no_difference_is_said_with_the_number_of_queries(tmp_path):
    metrics = make_metrics()
    for compared in metrics["comparisons"]["tuned"]["hybrid"].values():
        compared["verdict"] = "no difference"
    page = words(write_run(tmp_path / "run", metrics=metrics))
    assert page.headings[1][1].endswith("No difference that can be shown")
    assert "no difference that 83 queries can show" in page.said


def test_curves_data_problems_settings_time_and_use_are_told(whole_page):
    for told in (
        "best: step 90",
        "Absolute similarities do not compare between models; ranks do.",
        "25 set aside (held out for evaluation)",
        "query-is-passage",
        "loss, self-distillation",
        "Learning rate 1e-05",
        "FlagEmbedding 1.4.2 1.4.2",
        "Tokens a second, median",
        "Peak memory",
        "hybrid = 1.0 * dense + 0.3 * sparse + 1.0 * colbert",
        "model.max_seq_length = 128",
        "BM25",
        "is kept at the desk",
    ):
        assert told in whole_page.said, told
    assert "hf_secret" not in whole_page.text


def test_a_model_without_heads_is_told_the_reason_and_used_by_dense_alone(tmp_path):
    page = words(write_run(tmp_path / "run", metrics=make_metrics(headless=("tuned",))))
    assert "tuned has no sparse_linear.pt" in page.said
    assert "lexical_weights" not in page.said


@pytest.mark.slow
def test_a_long_log_is_thinned_by_means_and_that_is_said(tmp_path):
    page = report(write_run(tmp_path / "run", log=make_log(1300), metrics=None))
    assert "1,300 logged steps, thinned: each row is the mean of 3 of them" in page.said
    assert "Each point is the mean of 3 logged steps." in page.said


# ---- what is missing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "piece, said",
    [
        ("metrics", "nobody knows whether"),
        ("run", "with which settings and versions the model was trained is not known"),
        ("log", "no loss and learning curves"),
        ("manifest", "what the model was trained on"),
        ("problems", "can be counted, but not shown"),
    ],
)
def test_a_missing_piece_is_named_with_what_it_costs(tmp_path, piece, said):
    page = words(write_run(tmp_path / "run", **{piece: None}))
    assert "What is missing here" in page.said and said in page.said


def test_a_whole_run_misses_nothing(whole_page):
    assert "What is missing" not in whole_page.said


@pytest.mark.parametrize("piece", mostly_slow(["log", "metrics", "run", "manifest"]))
def test_one_piece_alone_makes_a_report(tmp_path, piece):
    none = dict.fromkeys(("metrics", "run", "log", "manifest", "problems"))
    none.pop(piece)
    page = report(write_run(tmp_path / "run", **none))
    assert page.headings[0] == (1, "run")


def test_a_stopped_run_says_why_and_what_to_do(tmp_path):
    run = make_run("stopped")
    page = words(write_run(tmp_path / "run", metrics=None, run=run, log=make_log(41, 0)))
    assert "The training stopped before its end: the loss is not finite (nan) after step 41." in page.said
    assert "It had logged 41 steps. Run the same command again" in page.said
    assert "Went on from step 30" in page.said and "precision bf16 instead of fp16" in page.said
    assert page.headings[1] == (2, "? Not evaluated")


def test_a_killed_run_may_leave_half_a_line(tmp_path):
    folder = write_run(tmp_path / "run", run=make_run("running"))
    with (folder / "train_log.jsonl").open("a") as file:
        file.write('{"step": 121, "lo')
    page = words(folder)
    assert "1 lines of train_log.jsonl could not be read" in page.said
    assert "still running, or it was killed" in page.said


def test_figures_that_are_no_numbers_are_gaps_in_the_curves(tmp_path):
    log = make_log(70, 0)
    log[3]["loss_dense"] = float("nan")
    assert "Loss" in report(write_run(tmp_path / "run", log=log, metrics=None)).said


def test_metrics_of_an_older_kit_are_shown_without_tests_of_chance(tmp_path):
    metrics = make_metrics(general=False)
    for key in ("verdict", "comparisons", "distributions", "examples", "bm25"):
        del metrics[key]
    for model in metrics["models"].values():
        del model["settings"], model["hybrid_weights"], model["hybrid"]["MAP"]
    page = words(write_run(tmp_path / "run", metrics=metrics))
    assert "Evaluate again" in page.said and "not whether they are larger than chance" in page.said
    assert page.headings[1] == (2, "? Not compared")


def test_training_data_without_problems_lacks_nothing(tmp_path):
    manifest = make_manifest() | {"problems": []}
    page = words(write_run(tmp_path / "run", manifest=manifest, problems=None))
    assert "What is missing" not in page.said


@pytest.mark.parametrize(
    "file, content",
    [
        ("metrics.json", "{"),
        ("metrics.json", "[]"),
        ("metrics.json", '{"models": {}}'),
        ("metrics.json", '{"models": {"base": {"dense": {"nDCG@10": NaN}}}}'),
        ("run.json", '{"status": 3}'),
        ("train_log.jsonl", "nothing\n"),
        ("prepared/manifest.json", b"\xff\xfe"),
        ("prepared/problems.jsonl", "{}\n"),
    ],
)
def test_a_broken_file_is_named_with_the_cure(tmp_path, file, content, capsys):
    folder = write_run(tmp_path / "run")
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["report", str(folder)]) == 1
    told = capsys.readouterr().err
    assert f"{folder / file} is damaged" in told and "delete it" in told
    assert not (folder / "report.html").exists()


def places(value, *path):
    """Of everything in a JSON value but itself."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(inner, *path, key)


@pytest.mark.parametrize("seed", mostly_slow(range(60), 12))
def test_whatever_is_wrong_in_the_files_there_is_a_page_or_a_sentence(tmp_path, seed):
    random = Random(seed)
    pieces = {"metrics": make_metrics(), "run": make_run("stopped"), "manifest": make_manifest(), "log": make_log(12)}
    piece = random.choice(["metrics", "metrics", *pieces])
    # As likely near the top as deep within.
    depth = random.randint(1, 7)
    *path, last = random.choice([path for path in places(pieces[piece]) if len(path) <= depth])
    inner = pieces[piece]
    for key in path:
        inner = inner[key]
    other = random.choice(["deleted", "<x>", 7, -0.5, None, True, [], {}])
    if other == "deleted":
        del inner[last]
    else:
        inner[last] = other
    try:
        assert words(write_run(tmp_path / "run", **pieces)).headings[0] == (1, "run")
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
    assert "scores" in drawn and "general" in drawn and "loss" in drawn and "scores-hybrid" in drawn
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
    left = {path.name for path in (folder / "plots").iterdir()}
    assert "loss.svg" not in left and "loss.png" not in left and {"mine.svg", "scores.svg"} <= left


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
    assert str(folder / "plots" / "loss.svg") in made["plots"] and "better" in made["verdict"]
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
