"""What is in the image, and under how little it still works."""

from __future__ import annotations

import json
import subprocess

import pytest
from docker_fixtures import IMAGE, TOKEN
from fake_hub import fake_hub

pytestmark = pytest.mark.slow
SINGLE = "./run_flagembedding_training_single_gpu.sh"


@pytest.fixture
def image(kit) -> dict:
    return json.loads(kit.engine.docker("image", "inspect", IMAGE))[0]


def in_image(kit, command: str, *options: str) -> str:
    return kit.engine.docker("run", "--rm", *options, IMAGE, "bash", "-c", command)


def test_it_holds_what_the_allow_list_names_and_nothing_else(kit):
    allowed = [line[1:] for line in (kit.folder / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    wanted = set()
    for name in allowed:
        path = kit.folder / name
        files = [path] if path.is_file() else path.rglob("*")
        wanted |= {str(file.relative_to(kit.folder)) for file in files if file.is_file()}
    wanted = {name for name in wanted if not name.endswith(".pyc")}
    found = set(in_image(kit, r"cd /workspace && find . -type f -printf '%P\n'").splitlines())
    assert found == wanted
    empty = in_image(kit, "cd /workspace && find . -type d -empty -printf '%P\\n'").split()
    assert sorted(empty) == ["cache", "custom_data", "data", "outputs"]


def test_no_secret_and_no_trace_of_the_folder_is_in_it(kit, image):
    # Handed to the build as a user would have them lie about: in .env, in a file, in the environment.
    assert TOKEN in (kit.folder / ".env").read_text() and TOKEN in (kit.folder / "notes.txt").read_text()
    history = kit.engine.docker("history", "--no-trunc", IMAGE)
    assert TOKEN not in history + json.dumps(image)
    for layer_text in (history, json.dumps(image["Config"])):
        assert not any(word in layer_text.upper() for word in ("PASSWORD", "API_KEY", "HF_TOKEN"))
    found = in_image(
        kit, f"grep -rlF {TOKEN} /workspace /home /root /tmp /etc /opt/venv/bin 2>/dev/null || true", "-u", "0"
    )
    assert found == ""
    # Nothing that building left behind: no caches of apt and pip, nothing of root's in the homes.
    left = "find /var/lib/apt/lists /root/.cache /tmp /home/trainer /workspace/cache -type f 2>/dev/null || true"
    assert in_image(kit, left, "-u", "0").split() == ["/home/trainer/.bashrc"]


def test_it_says_what_it_is_and_is_not_root(kit, image):
    labels = image["Config"]["Labels"]
    assert labels["org.opencontainers.image.base.name"] == "kit-base"
    assert {"org.opencontainers.image.title", "org.opencontainers.image.licenses", "m3kit.stamp"} <= set(labels)
    assert f'version = "{labels["org.opencontainers.image.version"]}"' in (kit.folder / "pyproject.toml").read_text()
    assert "org.opencontainers.image.revision" in labels
    # What NVIDIA's container toolkit asks an image for; a base without CUDA does not have it.
    assert {"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"} <= set(image["Config"]["Env"])
    assert image["Config"]["User"] == "1000:1000" and image["Config"]["StopSignal"] == "SIGTERM"
    assert in_image(kit, "id -u; touch /workspace/m3kit/x 2>&1 || true").split("\n")[0] == "1000"
    writable = "find / -xdev -type d -perm -o+w -not -path '/proc/*' 2>/dev/null"
    found = set(in_image(kit, writable, "-u", "0").split())
    home = {"/home/trainer"}
    mounted = {f"/workspace/{name}" for name in ("cache", "custom_data", "data", "outputs")}
    assert found <= home | mounted | {"/tmp", "/var/tmp", "/run/lock", "/dev/shm", "/dev/mqueue"}
    assert home | mounted <= found


def test_of_programs_that_build_it_has_what_deepspeed_needs(kit):
    programs = "for name in g++ ninja git curl wget make cmake gdb docker; do type -P $name; done; true"
    found = {path.rpartition("/")[2] for path in in_image(kit, programs).split()}
    # make comes with g++'s package of Debian, if at all.
    assert {"g++", "ninja"} <= found <= {"g++", "ninja", "make"}


def test_it_trains_without_a_network_a_writable_root_rights_or_a_known_user(kit):
    outputs, cache = kit.engine.folder / "sealed", kit.engine.folder / "sealed-cache"
    for folder in (outputs, cache):
        folder.mkdir()
        folder.chmod(0o777)
    options = ["--rm", "--init", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--user", "54321:54321"]
    options += [
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--env",
        "HF_HUB_OFFLINE=1",
        "--env",
        "OMP_NUM_THREADS=1",
    ]
    options += ["--volume", f"{outputs}:/workspace/outputs", "--volume", f"{cache}:/workspace/cache"]
    command = ["docker", "run", *options, IMAGE, SINGLE, "--smoke", "--max_steps", "3"]
    done = subprocess.run(command, env=kit.engine.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((outputs / "smoke_single_gpu" / "run.json").read_text())["status"] == "finished"
    for complaint in ("read-only file system", "permission denied", "not writable", "not a writable"):
        assert complaint not in (done.stdout + done.stderr).lower()


def test_a_token_reaches_the_hub_from_env_from_the_shell_and_from_a_file(kit):
    ask = ["python", "-c", "from huggingface_hub import get_token; print(get_token())"]
    assert kit.inside(*ask).strip() == TOKEN
    assert kit.with_(HF_TOKEN="hf_fromTheShell").inside(*ask).strip() == "hf_fromTheShell"
    env, file = kit.folder / ".env", kit.folder / "cache" / "huggingface" / "token"
    before = env.read_text()
    try:
        env.write_text(before.replace(f"HF_TOKEN={TOKEN}\n", ""))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("hf_fromAFile\n")
        assert kit.inside(*ask).strip() == "hf_fromAFile"
    finally:
        env.write_text(before)
        file.unlink()


def test_what_was_downloaded_once_is_there_without_a_network(kit):
    model = kit.folder / "cache" / "starter"
    small = kit.with_(EVAL_DATA="none", HOLDOUT="0", ALLOW_CPU="true", MODEL_NAME_OR_PATH="someone/starter")
    train = ["./run_docker_training.sh", "single", "--max_steps", "2", "--output_dir"]
    nowhere = small.with_(HF_HUB_OFFLINE="1").run(*train, "outputs/nothing")
    assert nowhere.returncode == 1 and "someone/starter is no folder here" in nowhere.stderr
    with fake_hub("someone/starter", model, kit.engine.gateway()) as url:
        online = small.with_(HF_ENDPOINT=url).run(*train, "outputs/online")
        assert online.returncode == 0, online.stderr
    offline = small.with_(HF_HUB_OFFLINE="1").run(*train, "outputs/offline")
    assert offline.returncode == 0, offline.stderr
