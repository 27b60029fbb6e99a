"""Downloads from the Hub, without a network: its own bar is there though transformers' bars are off."""

from __future__ import annotations

import huggingface_hub
import pytest
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from m3kit.hub import find_model_folder


@pytest.fixture
def bars_off(monkeypatch, tmp_path):
    """Returns a list that gets, at each download, whether the bars are off."""
    seen = []

    def download(**_):
        seen.append(are_progress_bars_disabled())
        (tmp_path / "config.json").write_text("{}")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    yield seen
    enable_progress_bars()


def test_the_bar_is_there_during_a_download_alone(bars_off, tmp_path):
    assert find_model_folder("someone/model") == tmp_path
    disable_progress_bars()
    find_model_folder("someone/model")
    assert bars_off == [False, False] and are_progress_bars_disabled()


def test_of_several_processes_one_has_a_bar(bars_off, monkeypatch):
    disable_progress_bars()
    for rank in "01":
        monkeypatch.setenv("LOCAL_RANK", rank)
        find_model_folder("someone/model")
    assert bars_off == [False, True]
