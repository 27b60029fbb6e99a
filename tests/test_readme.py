"""README and docs: what they name exists, their links resolve, and every module and cited fact stands in them."""

import graphlib
import re
from pathlib import Path

import pytest

from m3kit.cli import VERBS
from m3kit.settings import BY_NAME

KIT = Path(__file__).resolve().parent.parent
PAGES = [KIT / "README.md", *sorted((KIT / "docs").glob("*.md"))]
TEXTS = {page: page.read_text("utf-8") for page in PAGES}
TOP_LEVEL = (
    "Dockerfile docker-compose.yml .dockerignore docker_quick_start.sh run_docker_training.sh "
    "run_flagembedding_training.sh run_flagembedding_training_single_gpu.sh ds_stage0.json requirements.txt "
    "example_data/ tests/run"
).split()


def pages():
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages()
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text("utf-8")), target


@pages()
def test_scripts_and_paths_exist(page):
    text = TEXTS[page]
    for script in re.findall(r"\./(\w[\w/.-]*\.sh)", text):
        assert (KIT / script).is_file(), script
    for path in re.findall(r"`((?:m3kit|scripts|configs|tests|benchmarks|docs|example_data|\.ci)/[\w./-]*)`", text):
        assert (KIT / path).exists(), path


@pages()
def test_verbs_exist(page):
    for verb in re.findall(r"(?:python -m m3kit|`m3kit) ([a-z]+)", TEXTS[page]):
        assert verb in VERBS, verb


@pages()
def test_settings_exist(page):
    """Options of the training scripts in commands, and NAME=value in front of one."""
    for line in re.findall(r"^.*run_flagembedding_training.*$", TEXTS[page], re.MULTILINE):
        for name in re.findall(r" --([a-z_]{2,})", line):
            assert name in BY_NAME or name in ("smoke", "help"), name
        for name in re.findall(r"\b([A-Z][A-Z_]+)=", line):
            assert name.lower() in BY_NAME or name in ("M3KIT_DEBUG", "PWD"), name


def test_the_settings_of_the_readme_exist_with_their_defaults():
    table = TEXTS[KIT / "README.md"].split("## Ten settings")[1].split("## ")[0]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| `([^`]+)` \|", table, re.MULTILINE)
    assert len(rows) == 10
    for names, default in rows:
        for name in re.findall(r"\w+", names):
            assert default in (BY_NAME[name].default, BY_NAME[name].multi), name


def test_the_readme_is_short():
    lines = TEXTS[KIT / "README.md"].splitlines()
    assert len(lines) <= 180
    assert max(map(len, lines)) <= 120
    assert (KIT / "docs" / "report.png").stat().st_size < 200_000


def test_the_readme_names_the_files_that_users_know():
    known = TEXTS[KIT / "README.md"] + TEXTS[KIT / "docs" / "architecture.md"]
    for name in TOP_LEVEL:
        assert (KIT / name).exists() and f"{name}" in known, name


def test_every_fact_that_is_cited_is_listed():
    listed = set(re.findall(r"^\| ([DTS]\d) \|", TEXTS[KIT / "docs" / "flagembedding.md"], re.MULTILINE))
    cited = set()
    for file in (KIT / "m3kit").rglob("*.py"):
        cited |= set(re.findall(r"(?<![\w\"'])([DTS]\d)(?=[:,);.]| |$)", file.read_text("utf-8"), re.MULTILINE))
    assert cited and cited <= listed, f"not in docs/flagembedding.md: {sorted(cited - listed)}"


def test_every_module_stands_in_the_architecture():
    """One line a file; a new module needs its line in docs/architecture.md, one that is gone loses it."""
    named, folder = set(), ""
    for line in TEXTS[KIT / "docs" / "architecture.md"].splitlines():
        heading = re.match(r"### `([\w/]+)/`", line)
        folder = heading[1] if heading else folder
        named |= {f"{folder}/{name}" for name in re.findall(r"^\| `([\w.]+\.(?:py|sh))` \|", line) if folder}
    files = [*(KIT / "m3kit").rglob("*.py"), *(KIT / "scripts").glob("*.sh")]
    assert {file.relative_to(KIT).as_posix() for file in files if file.name != "__init__.py"} == named


def test_packages_import_one_way():
    """No package imports, by way of others, one that imports it; those of ``m3kit`` itself are not looked through."""
    uses = {
        folder.name: {
            name
            for file in folder.rglob("*.py")
            for name in re.findall(r"^\s*(?:from|import) m3kit\.(\w+)", file.read_text("utf-8"), re.MULTILINE)
        }
        for folder in (KIT / "m3kit").iterdir()
        if (folder / "__init__.py").exists()
    }
    order = graphlib.TopologicalSorter({name: used & uses.keys() - {name} for name, used in uses.items()})
    lowest_first = list(order.static_order())  # an error where two need each other
    assert lowest_first.index("reading") < lowest_first.index("data") < lowest_first.index("training")
