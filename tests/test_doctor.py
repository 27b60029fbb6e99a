"""`m3kit doctor`: what it says to people and to programs."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from types import SimpleNamespace

import pytest
import torch
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
    monkeypatch.setattr(doctor, "examine", lambda *_: [*FOUND, *more])
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
    monkeypatch.setattr(doctor, "examine", lambda *_: time.sleep(0.2) or FOUND)
    with terminal() as shown:
        doctor.run(arguments())
        assert "looking at this machine … 00:00" in shown()


# ---- The cards ----

WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.fixture
def cards(monkeypatch):
    """Have torch, as it comes from PyPI, show cards of these compute capabilities."""

    def shown(*capabilities: tuple[int, int]) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: capabilities[number])
        card = SimpleNamespace(name="Tesla V100", total_memory=16 << 30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: card)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: WHEEL)
        monkeypatch.setattr(doctor.platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(torch, "ones", lambda count, device: torch.zeros(count))

    return shown


def stops(capsys, *given: str) -> list[str]:
    assert doctor.run(arguments("--device", "cuda", "--json", *given)) in (0, 1)
    findings = json.loads(capsys.readouterr().out)["findings"]
    return [f"{finding['what']}; {finding['fix']}" for finding in findings if finding["level"] == "stop"]


@pytest.mark.parametrize("capability", [(7, 0), (6, 0), (6, 1), (5, 2)])
def test_a_card_that_torch_has_no_kernels_for_is_told_with_the_build_that_has_them(cards, capsys, capability):
    cards(capability)
    (told,) = stops(capsys)
    has = f"{capability[0]}.{capability[1]}"
    assert (
        told.startswith("GPU 0: Tesla V100, 16 GiB: torch ") and f"no kernels for its compute capability, {has}" in told
    )
    assert "from PyTorch's package index for CUDA 12.6 (docs/docker.md: TORCH_INDEX_URL)" in told
    assert "choose other cards with CUDA_VISIBLE_DEVICES" in told


def test_a_torch_that_knows_no_build_for_the_card_says_so(cards, capsys, monkeypatch):
    cards((3, 5))
    assert "likely an older one" in stops(capsys)[0]
    cards((7, 0))
    monkeypatch.delattr(torch.cuda, "PYTORCH_RELEASES_CODE_CC")
    assert "likely an older one" in stops(capsys)[0]


def test_a_card_that_does_not_compute_is_told_with_its_error(cards, capsys, monkeypatch):
    def fails(count, device):
        raise RuntimeError(f"CUDA driver error: operation not supported on {device}\nCompile with …")

    cards((8, 0))
    monkeypatch.setattr(torch, "ones", fails)
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    (told,) = stops(capsys)
    assert "a first sum on it failed: CUDA driver error: operation not supported on cuda:0; another program" in told
    assert told.endswith("set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:False")
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF")
    assert stops(capsys)[0].endswith("(nvidia-smi shows who)")


def test_only_cards_that_are_trained_on_count(cards, capsys):
    cards((8, 0), (7, 0))
    assert "GPU 1" in stops(capsys)[0]
    assert not stops(capsys, "--processes", "1")


SERVED = {
    ("sm_75", (7, 5)): True,
    ("sm_86", (8, 9)): True,  # no lower minor version
    ("sm_86", (8, 0)): False,
    ("sm_80", (9, 0)): False,  # another major version
    ("compute_80", (9, 0)): True,  # PTX: compiled anew for it
    ("compute_90", (8, 9)): False,
    ("sm_90a", (9, 0)): True,
    ("compute_90a", (10, 0)): False,
    ("sm_120", (12, 1)): True,
    ("sm_120", (10, 0)): False,
}


@pytest.mark.parametrize("case", SERVED)
def test_which_code_runs_on_which_card(case):
    architecture, capability = case
    assert doctor.serves([architecture], capability) is SERVED[case]


def test_every_process_is_to_have_a_card_of_its_own(cards, capsys):
    """Of two MIG instances CUDA shows one."""
    cards((8, 0))
    assert not stops(capsys, "--processes", "1")
    (told,) = stops(capsys, "--processes", "2")
    assert told.startswith("asked for 2 processes, and CUDA shows 1 device (of several MIG instances")
    assert "use ./run_flagembedding_training_single_gpu.sh" in told
