"""The memory plan: which model, what it says, what memory is free."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path

import pytest
from terminal import terminal
from transformers import AutoConfig

from m3kit import memory
from m3kit.errors import KitError
from m3kit.free_memory import free_on_machine
from m3kit.memory import GIB, Line, as_data, find_config, judge, make_step, plan, render
from m3kit.training.ledger import KINDS

# ---- What is said ----


def arguments(*given: str):
    parser = ArgumentParser()
    memory.add_arguments(parser)
    return parser.parse_args(given)


def test_bge_m3_needs_no_download_and_others_do(tmp_path):
    config = find_config("BAAI/bge-m3", cache_dir=str(tmp_path))
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (1024, 24, 250002)
    for name in ("someone/never-downloaded", "no such/folder at all"):
        with pytest.raises(KitError, match="not on this machine yet"):
            find_config(name, cache_dir=str(tmp_path))
    with pytest.raises(KitError, match="holds no model"):
        find_config(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_downloaded_model_is_found_in_the_cache(tmp_path):
    repository = tmp_path / "models--someone--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("abc")
    (repository / "snapshots/abc").mkdir(parents=True)
    (repository / "snapshots/abc/config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 384}))
    assert find_config("someone/model", cache_dir=str(tmp_path)).hidden_size == 384


@pytest.mark.slow
def test_the_command_prints_table_and_verdict(model_folder, capsys):
    assert (
        memory.run(arguments("--model_name_or_path", str(model_folder), "--device", "cpu", "--precision", "fp32"))
        is None
    )
    first, worst, _, heading, *rows, verdict = capsys.readouterr().out.splitlines()
    assert "2 queries with 8 passages" in first and "fp32" in first
    assert worst.startswith("The worst case: all texts as long as query_max_len (512 tokens)")
    assert heading.split() == [*KINDS, "sum"]
    assert [row.split("  ")[0] for row in rows] == [
        "as asked for",
        "gradient_checkpointing False",
        "precision bf16",
        "unified_finetuning False",
        "sub_batch_tokens 8192",
        "sub_batch_tokens 32768",
        "per_device_train_batch_size 4",
        "FlagEmbedding untouched",
    ]
    assert verdict.startswith("It ")


@pytest.mark.slow
def test_json_has_what_the_table_has(starter, capsys):
    words = ["--model_name_or_path", str(starter), "--device", "cpu", "--per_device_train_batch_size", "auto"]
    memory.run(arguments(*words))
    *_, first, _, _, _, _, _, _, _, verdict = capsys.readouterr().out.splitlines()
    memory.run(arguments(*words, "--json"))
    found = json.loads(capsys.readouterr().out)
    line = found["lines"][0]
    assert first.split()[3:] == [f"{line['bytes'][kind] / GIB:.2f}" for kind in KINDS] + [f"{line['sum'] / GIB:.2f}"]
    assert len(found["lines"]) == 8 and found["lines"][-1]["change"] == "FlagEmbedding untouched"
    assert line["sum"] == sum(line["bytes"].values()) < line["needed"]
    # What is free may have changed in between.
    assert found["told"].split(",")[0] == verdict.split(",")[0] and found["free"] > 0
    assert found["verdict"] == line["verdict"] == "fits"
    options = found["options"]
    assert (options["device"], options["train_group_size"], options["per_device_train_batch_size"]) == ("cpu", 8, 2)
    assert found["batch_size_is_auto"] and not found["is_estimate"]


@pytest.mark.slow
def test_on_a_terminal_planning_shows_a_bar(starter, capsys, soon):
    with terminal() as shown:
        memory.run(arguments("--model_name_or_path", str(starter), "--device", "cpu", "--json"))
        told = shown()
    assert "planning:" in told and "/8 plans [" in told
    json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_an_automatic_batch_is_planned_as_two_and_said_so(starter, capsys):
    memory.run(arguments("--model_name_or_path", str(starter), "--per_device_train_batch_size", "auto"))
    out = capsys.readouterr().out
    assert "per_device_train_batch_size is auto" in out and "planned for 2" in out
    assert "an estimate" in out


def test_a_model_that_cannot_be_planned_is_a_sentence():
    with pytest.raises(KitError, match="no plan: a step of a mpnet model"):
        plan(AutoConfig.for_model("mpnet", num_hidden_layers=1), make_step(arguments("--device", "cpu")))


def line(change: str, gib: float) -> Line:
    return Line(change, {"parameters": int(gib * GIB), "heads": 0})


def test_the_table_tells_differences():
    rendered = render([line("as asked for", 2), line("more", 3.5), line("equal", 2.001)]).splitlines()
    assert [row.split()[-1] for row in rendered[1:]] == ["2.00", "+1.50", "same"]
    assert len({row.index("2.00") for row in rendered if "as asked" in row or "equal" in row}) == 1


def test_whether_it_fits_and_what_would():
    lines = [line("as asked for", 10), line("smaller", 6), line("larger", 12), line("FlagEmbedding untouched", 1)]
    assert judge(lines, "cuda", 4, 24 * GIB).startswith("It fits: about 10.8 GiB with CUDA, and the GPU has 24.0 GiB")
    assert judge(lines, "cuda", 1, 11 * GIB).startswith("It just fits")
    assert judge(lines, "cuda", 1, 8 * GIB).endswith("what would: smaller.")
    assert judge(lines, "cuda", 1, 2 * GIB).endswith("change several.")
    # Processes on a CPU share its memory.
    assert judge(lines, "cpu", 1, 16 * GIB).startswith("It fits")
    assert judge(lines, "cpu", 2, 16 * GIB).endswith("what would: smaller.")
    assert "cannot be told" in judge(lines, "cuda", 1, None)


def test_programs_are_told_the_same():
    step = make_step(arguments("--device", "cuda"))
    lines = [line("as asked for", 10), line("smaller", 6)]
    for free, verdicts in (
        (24 * GIB, ["fits", "fits"]),
        (11 * GIB, ["just fits", "fits"]),
        (8 * GIB, ["does not fit", "fits"]),
        (None, [None, None]),
    ):
        found = as_data("a model", step, False, lines, free)
        assert [row["verdict"] for row in found["lines"]] == verdicts
        assert found["verdict"] == verdicts[0]
        assert found["told"] == judge(lines, "cuda", 1, free)


# ---- What is free ----


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": f"MemTotal: 99 kB\nMemAvailable: {8 << 20} kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_free_memory_without_limits_is_the_machine_s(tmp_path):
    assert free_on_machine(machine(tmp_path, {})) == 8 * GIB
    unlimited = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "max\n",
        "sys/fs/cgroup/memory.current": "5\n",
    }
    assert free_on_machine(machine(tmp_path, unlimited)) == 8 * GIB


def test_free_memory_ends_at_the_container_s_limit(tmp_path):
    group = "sys/fs/cgroup"
    files = {
        "proc/self/cgroup": "0::/outer/inner\n",
        f"{group}/outer/memory.max": f"{4 * GIB}\n",
        f"{group}/outer/memory.current": f"{3 * GIB}\n",
        f"{group}/outer/memory.stat": f"anon 5\ninactive_file {GIB}\n",
        f"{group}/outer/inner/memory.max": "max\n",
        f"{group}/outer/inner/memory.current": "7\n",
    }
    assert free_on_machine(machine(tmp_path / "nested", files)) == 2 * GIB
    files = {
        "proc/self/cgroup": "0::/named/outside\n",
        f"{group}/memory.max": f"{3 * GIB}\n",
        f"{group}/memory.current": "0\n",
    }
    assert free_on_machine(machine(tmp_path / "container", files)) == 3 * GIB
    files = {
        "proc/self/cgroup": "5:cpu:/\n4:memory:/docker/abc\n",
        f"{group}/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
        f"{group}/memory/memory.usage_in_bytes": f"{GIB}\n",
    }
    assert free_on_machine(machine(tmp_path / "version 1", files)) == GIB
