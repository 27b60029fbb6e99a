"""`m3kit doctor`: what it says to people and to programs."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser

import pytest
from terminal import terminal

from m3kit import doctor
from m3kit.doctor import Finding

FOUND = [Finding("ok", "Python 3.11.7"), Finding("note", "no g++", "apt-get install g++")]


def arguments(*given: str):
    parser = ArgumentParser()
    doctor.add_arguments(parser)
    return parser.parse_args(given)


@pytest.mark.parametrize("more", [[], [Finding("stop", "no GPU found", "wait for one")]])
def test_json_has_the_same_findings(monkeypatch, capsys, more):
    monkeypatch.setattr(doctor, "examine", lambda device: [*FOUND, *more])
    assert doctor.run(arguments()) == len(more)
    out, err = capsys.readouterr()
    assert out == "" and "note  no g++; apt-get install g++\n" in err
    assert doctor.run(arguments("--json")) == len(more)
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert err == "" and told["can_train"] == (not more)
    assert [Finding(**finding) for finding in told["findings"]] == [*FOUND, *more]


def test_this_machine_is_looked_at(capsys):
    doctor.run(arguments("--device", "cpu", "--json"))
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert any("training on the CPU" in finding["what"] for finding in findings)


def test_on_a_terminal_a_slow_look_shows_the_time(monkeypatch, soon):
    monkeypatch.setattr(doctor, "examine", lambda device: time.sleep(0.2) or FOUND)
    with terminal() as shown:
        doctor.run(arguments())
        assert "looking at this machine … 00:00" in shown()
