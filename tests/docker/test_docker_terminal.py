"""The wrapper and Compose by hand, typed into a real terminal."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
import urllib.request

import pexpect
import pytest

pytestmark = pytest.mark.slow
WRAPPER = "./run_docker_training.sh"
TINY = {"MODEL_NAME_OR_PATH": "cache/starter", "EVAL_DATA": "none", "HOLDOUT": "0", "ALLOW_CPU": "true"}
PROMPT = r"bge-m3:/workspace\$ "


def end_of(terminal: pexpect.spawn) -> int:
    """Read to the end; the exit code."""
    terminal.expect(pexpect.EOF)
    terminal.close()
    return terminal.exitstatus if terminal.exitstatus is not None else 128 + terminal.signalstatus


def type_in_shell(terminal: pexpect.spawn) -> None:
    """A shell that has the kit, a home, and the caller's name for files."""
    terminal.expect(PROMPT)
    terminal.sendline("python -m m3kit --help && id -u && ls -d example_data custom_data && echo $((6 * 7))")
    terminal.expect("usage: python -m m3kit")
    terminal.expect(r"\s0\s+custom_data\s+example_data\s+42\s")
    terminal.expect(PROMPT)
    terminal.sendline("exit 3")
    assert end_of(terminal) == 3


def test_the_menu_marks_the_default_and_gives_a_shell(any_compose):
    terminal = any_compose.terminal(WRAPPER)
    terminal.expect(r"smoke +try everything[^\r\n]*<- Enter \(no GPU for the container\)")
    terminal.expect("Number or name: ")
    terminal.sendline("nonsense")
    terminal.expect("There is no 'nonsense'; a number from 1 to 8")
    terminal.sendline("6")
    type_in_shell(terminal)
    assert any_compose.engine.containers() == []


def test_enter_takes_the_default_and_ctrl_c_ends_it(any_compose):
    terminal = any_compose.terminal(WRAPPER)
    terminal.expect("Number or name: ")
    terminal.sendline("")
    terminal.expect("== Preparing the data")
    terminal.sendintr()
    terminal.expect("stopped by a signal while")
    assert end_of(terminal) == 130
    assert any_compose.engine.containers() == []


def test_shell_and_compose_by_hand_give_a_shell(any_compose):
    by_hand = ["docker", "compose"] if any_compose.environment else ["docker-compose"]
    type_in_shell(any_compose.terminal(WRAPPER, "shell"))
    type_in_shell(any_compose.terminal(*by_hand, "run", "--rm", "bge-m3-training", "bash"))
    assert any_compose.engine.containers() == []


@pytest.mark.parametrize(("what", "processes"), [("single", 1), ("multi", 2)])
def test_it_trains_in_the_container(kit, what, processes):
    """multi with DeepSpeed, which compiles a part of itself there."""
    small = kit.with_(**TINY, OUTPUT_DIR=f"outputs/{what}", **({"NUM_GPUS": "2"} if what == "multi" else {}))
    terminal = small.terminal(WRAPPER, what, "--max_steps", "3")
    terminal.expect(r"step 3/3")
    terminal.expect(f"Next, to see whether it got better: ./run_docker_training.sh -- env .* tuned=.*outputs/{what} ")
    assert end_of(terminal) == 0
    run = json.loads((kit.folder / f"outputs/{what}/run.json").read_text())
    assert run["status"] == "finished" and run["world_size"] == processes


def test_smoke_and_evaluate(kit):
    """After a smoke run of few steps, evaluate without arguments takes that run."""
    terminal = kit.terminal(WRAPPER, "smoke", "--output_dir", "outputs/few", "--max_steps", "3")
    terminal.expect("The model is in outputs/few")
    assert end_of(terminal) == 0
    metrics = kit.folder / "outputs/few/metrics.json"
    before = json.loads(metrics.read_text())
    metrics.unlink()
    terminal = kit.terminal(WRAPPER, "evaluate")
    terminal.expect("The newest finished run: outputs/few; its base: ")
    terminal.expect(re.escape(before["verdict"][:40]))
    assert end_of(terminal) == 0
    assert json.loads(metrics.read_text())["verdict"] == before["verdict"]


def test_what_is_piped_comes_through_unchanged(any_compose):
    done = any_compose.run(WRAPPER, "--", "python", "-c", r"print('a\tb\nc  [1] d\'été $HOME')")
    assert done.stdout == "a\tb\nc  [1] d'été $HOME\n"
    assert any_compose.run(WRAPPER, "--", "bash", "-c", "exit 37").returncode == 37


def test_tensorboard_is_reached_from_outside_is_healthy_and_ends(any_compose):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = any_compose.with_(TENSORBOARD_PORT=str(port)).start(WRAPPER, "tensorboard")
    try:
        for _ in range(300):
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5).read()
                break
            except OSError:
                time.sleep(0.2)
        assert b"TensorBoard" in page
        (name,) = any_compose.engine.containers()
        check = json.loads(any_compose.engine.docker("inspect", "--format", "{{json .Config.Healthcheck.Test}}", name))
        assert check[0] == "CMD"
        any_compose.engine.docker("exec", name, *check[1:])
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 143
    assert any_compose.engine.containers() == []
