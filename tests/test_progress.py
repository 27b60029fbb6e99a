"""The progress bar: on a terminal and after a while; never on a pipe."""

from __future__ import annotations

import io
import sys
import time

import pytest
from terminal import terminal

from m3kit.progress import bar


def test_a_bar_with_a_total_moves_and_goes_away(soon):
    with terminal() as shown:
        with bar(2000, "encoding", "texts") as made:
            for _ in range(10):
                made.update(100)
                time.sleep(0.02)
        told = shown()
    assert "encoding:" in told and "/2,000 texts [" in told and "texts/s" in told
    assert told.endswith("\r") and told.split("\r")[-2].strip() == ""


def test_one_long_call_shows_the_time(soon):
    with terminal() as shown:
        with bar(None, "making the vocabulary", ""):
            time.sleep(0.2)
        assert "making the vocabulary … 00:00" in shown()


def test_a_total_may_be_known_later(soon):
    with terminal() as shown:
        with bar(0, "loading", "plans") as made:
            time.sleep(0.2)
            assert "loading … 00:00" in shown()
            made.total = 4
            made.update(1)
            time.sleep(0.2)
        assert "25% |" in shown()


@pytest.mark.parametrize(
    ("count", "seconds", "told"), [(90, 2, "45 rows/s"), (3, 2, "1.5 rows/s"), (2, 5, "2.5 s each")]
)
def test_how_fast_it_goes(count, seconds, told):
    with terminal(), bar(100, "reading", "rows") as made:
        assert made.format_dict["speed"] == "?"
        made.update(count)
        made.start_t -= seconds
        assert made.format_dict["speed"] == told


def test_what_is_counted_without_a_total(soon):
    with terminal() as shown:
        with bar(None, "looking", "texts") as made:
            made.update(1234)
            time.sleep(0.2)
        assert "looking: 1,234 texts [" in shown()


def test_bytes_have_their_units_and_the_title_changes(soon):
    with terminal() as shown:
        with bar(1 << 21, "reading", "B") as made:
            made.say("a title that is far too long for the place there is")
            made.update(1 << 20)
            time.sleep(0.2)
        told = shown()
    assert "1.00M/2.00MB" in told and "a title that is far too long …:" in told


def test_more_than_the_total_is_no_error(soon):
    with terminal() as shown:
        with bar(10, "reading", "rows") as made:
            made.update(25)
            time.sleep(0.2)
        assert "100% |" in shown()


def test_nothing_before_two_seconds():
    with terminal() as shown:
        with bar(10, "reading", "rows") as made:
            made.update(5)
            made.say("writing")
            time.sleep(0.05)
        assert shown() == ""


def test_nothing_on_a_pipe(soon, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with bar(10, "reading", "rows") as made:
        made.update(5)
        time.sleep(0.1)
    assert stream.getvalue() == ""


def test_an_error_passes_through(soon):
    with terminal() as shown:
        with pytest.raises(ValueError), bar(10, "reading", "rows"):
            time.sleep(0.1)
            raise ValueError
        assert shown().endswith("\r")
