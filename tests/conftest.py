"""What several test files share: a tiny model, and rows written to files."""

from __future__ import annotations

import gc
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

# The tests must pass without a network and leave the cores to one another.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where a test lets PyTorch have all cores, its threads wait asleep. Awake, beside a test on another core, they make a
# training run take three to four times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A conftest.py of tests/docker would hide this one from those who import it.
pytest_plugins = ["docker_fixtures"]

KIT = Path(__file__).resolve().parent.parent
EXAMPLE_DATA = KIT / "example_data"
DOCKER = "tests/docker/"


settings.register_profile("fast", max_examples=10)


def examples(many: int, fast: int | None = None) -> int:
    """So many examples of a property, or ``fast`` with --hypothesis-profile=fast, which tests/run --fast gives."""
    share = settings().max_examples / 100
    return many if share == 1 else fast or int(many * share)


def mostly_slow(cases, quick: int = 1) -> list:
    """The cases of a test, of which all but the first ``quick`` are slow."""
    return [
        case
        if number < quick
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for number, case in enumerate(cases)
    ]


def pytest_collection_finish():
    """FlagEmbedding collects garbage with each model that it lets go, and would go through all that was imported."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config, items):
    """On two workers, what takes longest starts first: tests/docker, then the files with most slow tests."""
    if not hasattr(config, "workerinput"):
        return
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (not item.nodeid.startswith(DOCKER), -slow[item.path]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """``--dist loadfile`` as it is, but all of tests/docker as one file: those tests share one Docker engine.

    This would be ``--dist loadgroup``, but with pytest 9.2 pytest-xdist 3.8 ignores its groups.
    """
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return DOCKER if nodeid.startswith(DOCKER) else super()._split_scope(nodeid)

    config.option.loadscopereorder = False  # the order of above
    return Scheduling(config, log)


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


@pytest.fixture(scope="session")
def starter(tmp_path_factory) -> Path:
    """The starter model, made once."""
    from m3kit.starter import make_starter

    folder = tmp_path_factory.mktemp("models") / "starter"
    make_starter(folder)
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """The tiny model, made once; its path has what paths may have."""
    from tiny import write_tiny_model

    folder = tmp_path_factory.mktemp("models") / "tiny 'mödel' [1]"
    write_tiny_model(folder)
    return folder


@pytest.fixture
def soon(monkeypatch):
    """A progress bar is shown at once."""
    from m3kit import progress

    monkeypatch.setattr(progress, "DELAY", 0.02)
    monkeypatch.setattr(progress, "EVERY", 0.02)


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory) -> Path:
    """The files of a run, for the report; its path has what paths may have."""
    from report_helpers import write_run

    return write_run(tmp_path_factory.mktemp("runs") / "mein 'Lauf' [1] & <b>")


@pytest.fixture(scope="session")
def whole_page(whole_run):
    """The report of that run, parsed: see ``report_reading.Page``."""
    from report_reading import report

    return report(whole_run)
