"""The command line itself: help, wrong verbs, and a Python that lacks what the kit needs."""

from __future__ import annotations

import os
import subprocess
import sys
import venv

import pytest
from conftest import KIT

from m3kit.cli import VERBS, main


def test_help_has_one_line_for_each_verb(capsys):
    assert main(["--help"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "usage: python -m m3kit VERB [ARGUMENTS]" and not err
    told = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if line.startswith("  ")}
    assert list(told) == list(VERBS)
    assert all(len(words) > 15 for words in told.values()), told


def test_without_a_verb_the_help_is_an_error(capsys):
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("usage: python -m m3kit VERB")


@pytest.mark.parametrize(
    ("typed", "meant"), [("evalute", "did you mean evaluate? The verbs: "), ("zzz", "the verbs: doctor, ")]
)
def test_an_unknown_verb_gets_the_nearest(capsys, typed, meant):
    assert main([typed]) == 2
    assert capsys.readouterr().err.startswith(f"m3kit: there is no verb '{typed}'; {meant}")


def call(python: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(KIT)}
    command = [python, "-m", "m3kit", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_help_imports_no_package():
    code = (
        "import sys, m3kit.cli; m3kit.cli.main(['--help']); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=KIT, stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_a_python_without_the_packages_gets_a_sentence(tmp_path):
    venv.create(tmp_path / "bare", symlinks=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    assert "  evaluate " in call(python, "--help").stdout
    for verb in VERBS:
        if verb == "plan":
            continue
        done = call(python, verb)
        assert done.returncode == 1, done
        assert done.stderr.startswith(f"m3kit {verb}: this Python ({python}) has no package ")
        assert done.stderr.count("\n") == 1
        assert ".venv/bin/python -m m3kit" in done.stderr or "-m pip install -r " in done.stderr


def test_an_old_python_gets_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    assert main(["report", "run"]) == 1
    assert ", and 3.11 is needed; " in capsys.readouterr().err
