"""Every setting stands once, in m3kit/settings.py: what is written elsewhere by hand is held against it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from trainer_arguments import describe

from m3kit.argument_names import FORMER, WITHOUT_EFFECT, trainer_arguments
from m3kit.settings import BY_NAME, SETTINGS
from m3kit.settings_text import compose, markdown

KIT = Path(__file__).resolve().parents[1]
SCRIPTS = {"single": "run_flagembedding_training_single_gpu.sh", "multi": "run_flagembedding_training.sh"}
# What the README of the kit's first user names, and the paths.
EDITED = {
    "model_name_or_path",
    "train_data",
    "output_dir",
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
    "query_max_len",
    "passage_max_len",
    "sentence_pooling_method",
    "temperature",
    "precision",
    "gradient_checkpointing",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_scripts_variables_are_settings_with_their_defaults(script):
    block = dict(re.findall(r'^([a-z_]+)="\$\{[A-Z_]+:-(.*?)\}"', (KIT / SCRIPTS[script]).read_text("utf-8"), re.M))
    assert EDITED - {"train_data"} <= block.keys()
    for name, default in block.items():
        assert default.removeprefix("$KIT_DIR/") == BY_NAME[name].default_of(script), name
        assert script == "multi" or not BY_NAME[name].several, name


def test_compose_passes_every_setting_on():
    text = (KIT / "docker-compose.yml").read_text("utf-8")
    passed = set(yaml.safe_load(text)["services"]["bge-m3-training"]["environment"])
    assert {setting.variable for setting in SETTINGS} <= passed
    assert compose(text) == text, "bring it up to date: python -m m3kit.settings_text"


def test_the_page_of_settings_is_up_to_date():
    assert (KIT / "docs" / "settings.md").read_text("utf-8") == markdown() + "\n"


def test_the_trainers_arguments_are_known():
    described = json.loads(json.dumps(describe()))
    assert json.loads((KIT / "m3kit" / "trainer_arguments.json").read_text("utf-8")) == described, (
        "make it anew: PYTHONPATH=. python tests/trainer_arguments.py > m3kit/trainer_arguments.json"
    )


def test_what_goes_to_the_trainer_is_an_argument_of_it():
    for setting in SETTINGS:
        if setting.to.startswith("trainer") or setting.to == "kit":
            assert setting.name in trainer_arguments(), setting.name
            kind = trainer_arguments()[setting.name]
            if setting.default and setting.default != "auto":
                kind.parse(setting.default)


def test_no_name_is_both_taken_and_refused():
    assert not FORMER.keys() & trainer_arguments().keys()
    assert WITHOUT_EFFECT.keys() <= trainer_arguments().keys()
    assert not WITHOUT_EFFECT.keys() & BY_NAME.keys()


def test_settings_and_plan_need_no_packages():
    """A plan is made before anything is installed."""
    code = "import sys; import m3kit.planning.command; print(*sorted(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(KIT)}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not {"numpy", "torch", "orjson", "xxhash", "transformers"} & set(done.stdout.split())
