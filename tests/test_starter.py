"""`m3kit starter`: what it says; the model itself is tested wherever it is trained."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import ArgumentParser

import pytest
from conftest import KIT
from terminal import terminal

from m3kit import starter as module


def arguments(*given):
    parser = ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(list(map(str, given)))


@pytest.mark.slow
def test_json_has_path_files_and_sizes_and_stands_alone(tmp_path, capsys):
    command = [sys.executable, "-m", "m3kit", "starter", "--output_dir", tmp_path / "one", "--json", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=KIT, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    files = {path.name: path.stat().st_size for path in (tmp_path / "one").iterdir()}
    assert (found["path"], found["files"], found["seed"]) == (str(tmp_path / "one"), files, 7)
    assert found["bytes"] == sum(files.values()) and found["vocabulary"] > 1000
    assert "\r" not in done.stderr  # no bar
    module.run(arguments("--output_dir", tmp_path / "two", "--seed", 7))
    out, err = capsys.readouterr()
    assert out == "" and f"starter model: {tmp_path / 'two'}" in err
    assert {path.name: path.stat().st_size for path in (tmp_path / "two").iterdir()} == files


def test_on_a_terminal_a_bar_shows_that_it_works(tmp_path, capsys, soon):
    with terminal() as shown:
        module.run(arguments("--output_dir", tmp_path / "starter", "--json"))
        told = shown()
    assert "making the starter model … 00:0" in told and "Writing" not in told
    assert json.loads(capsys.readouterr().out)["path"] == str(tmp_path / "starter")
