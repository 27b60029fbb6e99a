"""Checkpoints that were damaged at random, rotated, published."""

from __future__ import annotations

import json

import pytest
from checkpoint_helpers import FILES, a_folder, damage, save, steps
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_hexdigest

from m3kit.run_folder import checkpoints
from m3kit.run_folder.checkpoints import flaw, newest_intact, publish, rotate

# Damage


def test_an_intact_checkpoint_has_no_flaw(tmp_path):
    folder = save(tmp_path, 8)
    assert folder == tmp_path / "checkpoint-8"
    sealed = json.loads((folder / "checkpoint.json").read_text())
    assert sealed["step"] == 8
    assert sealed["files"]["optimizer.pt"] == {
        "bytes": 17,
        "ends": xxh3_64_hexdigest(b"optimizer.pt of 8"),
    }
    assert set(sealed["files"]) == set(FILES)
    assert flaw(folder) is None
    assert newest_intact(tmp_path) == (folder, [])


@pytest.mark.parametrize("size", [1, 7, 8, 13, 14, 15, 70])
def test_of_a_large_file_both_ends_are_compared(tmp_path, monkeypatch, size):
    monkeypatch.setattr(checkpoints, "END", 7)
    content = bytes(range(size))
    folder = save(tmp_path, 8, {"weights": content})
    assert flaw(folder) is None
    for place in {0, min(size, 7) - 1, max(size - 7, 0), size - 1}:
        (folder / "weights").write_bytes(content[:place] + b"\xff" + content[place + 1 :])
        assert flaw(folder) == "weights does not hold what was written"
    for other in (content[:-1], content + b"x", content[: size // 2]):
        (folder / "weights").write_bytes(other)
        assert flaw(folder) == f"weights is {len(other)} bytes instead of {size}"


def test_a_large_file_is_never_read_whole(tmp_path):
    folder = save(tmp_path, 8, {"a": b"a"})
    with (folder / "optimizer.pt").open("wb") as file:
        file.truncate(1 << 40)
    checkpoints.seal(folder)
    assert flaw(folder) is None
    with (folder / "optimizer.pt").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    assert flaw(folder) == "optimizer.pt does not hold what was written"


def test_what_an_earlier_version_has_sealed_is_compared_by_size(tmp_path):
    folder = save(tmp_path, 8, {"weights": b"w"})
    sealed = {"step": 8, "files": {"weights": {"bytes": 1, "xxh3_64": "of the whole file"}}}
    (folder / "checkpoint.json").write_text(json.dumps(sealed))
    assert flaw(folder) is None
    damage(folder / "weights")
    assert flaw(folder) == "weights is 0 bytes instead of 1"


@pytest.mark.slow
@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_damage_is_named_and_the_newest_intact_one_before_it_is_found(data):
    with a_folder() as output:
        saved = sorted(data.draw(st.sets(st.integers(0, 1200), min_size=1, max_size=4)))
        for step in saved:
            save(output, step, {name: data.draw(st.binary(min_size=1, max_size=40)) for name in FILES})
        broken = data.draw(st.sets(st.sampled_from(saved)))
        for step in broken:
            name = data.draw(st.sampled_from([*FILES, "checkpoint.json"]))
            path = output / f"checkpoint-{step}" / name
            content = path.read_bytes()
            kind = data.draw(st.sampled_from(["cut", "gone", "longer", "flipped"]))
            if kind == "gone":
                path.unlink()
            elif kind == "cut":
                # Without its last character, a line break, the seal says the same.
                path.write_bytes(
                    content[: data.draw(st.integers(0, len(content) - (2 if "checkpoint" in name else 1)))]
                )
            elif kind == "longer" or name == "checkpoint.json":
                path.write_bytes(content + data.draw(st.binary(min_size=1, max_size=9).filter(bytes.strip)))
            else:
                place, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
                path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            assert flaw(path.parents[name.count("/")]).startswith(f"{name} ")
        found, passed_over = newest_intact(output)
        intact = [step for step in saved if step not in broken]
        assert found == (output / f"checkpoint-{intact[-1]}" if intact else None)
        newer = [step for step in reversed(saved) if not intact or step > intact[-1]]
        assert [said.split(":")[0] for said in passed_over] == [f"checkpoint-{n} is passed over" for n in newer]


@pytest.mark.slow
@settings(max_examples=examples(100), deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 7))
def test_a_flipped_bit_of_the_seal_is_found_or_changes_nothing(place, bit):
    with a_folder() as output:
        path = save(output, 8) / "checkpoint.json"
        content = path.read_bytes()
        place %= len(content)
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        assert flaw(path.parent) or json.loads(path.read_bytes()) == json.loads(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "checkpoint.json is empty"),
        (b"\0" * 400, "checkpoint.json is damaged"),
        (b"{}", "checkpoint.json is damaged"),
        (b"[]", "checkpoint.json is damaged"),
        (b"null", "checkpoint.json is damaged"),
        (b'{"step": 8, "files": {}}', "checkpoint.json is damaged"),
        (b'{"step": 8, "files": []}', "checkpoint.json is damaged"),
        (b'{"step": 8, "files": {"optimizer.pt": 1}}', "checkpoint.json is damaged"),
        (b'{"step": 8, "files": {"optimizer.pt": {"bytes": "x"}}}', "checkpoint.json is damaged"),
        (b'{"step": true, "files": {"optimizer.pt": {}}}', "its checkpoint.json is that of step True"),
        (b'{"step": 8, "files": {"a": 1}}', "a is missing"),
        (b'{"step": 8, "files": {"\\u0000": {"bytes": 1, "ends": ""}}}', "\0 is missing"),
        (b'{"step": 8, "files": {"../a": {"bytes": 1, "ends": ""}}}', "../a is missing"),
        (b"[" * 100_000, "checkpoint.json is damaged"),
        (b"\xff\xfe", "checkpoint.json is damaged"),
        (None, "checkpoint.json is missing"),
    ],
)
def test_a_seal_may_hold_anything(tmp_path, content, said):
    folder = save(tmp_path, 8)
    (folder / "checkpoint.json").unlink()
    if content is not None:
        (folder / "checkpoint.json").write_bytes(content)
    assert flaw(folder) == said


def test_what_is_found_is_said(tmp_path):
    folder = save(tmp_path, 8, {"optimizer.pt": b"x" * 3400, "a": b"y"})
    (folder / "optimizer.pt").write_bytes(b"x" * 12)
    assert flaw(folder) == "optimizer.pt is 12 bytes instead of 3,400"
    (folder / "optimizer.pt").write_bytes(b"z" * 3400)
    assert flaw(folder) == "optimizer.pt does not hold what was written"
    (folder / "a").unlink()
    (folder / "a").mkdir()
    assert flaw(folder) == "a is missing"
    copied = folder.rename(tmp_path / "checkpoint-9")
    assert flaw(copied) == "its checkpoint.json is that of step 8"


def test_other_names_are_no_checkpoints(tmp_path):
    assert newest_intact(tmp_path / "no such folder") == (None, [])
    for name in ("checkpoint-x", "checkpoint-", "checkpoint-1.bak", "checkpoint-007", "checkpoint-٣", "xcheckpoint-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-12").write_text("a file")
    assert newest_intact(tmp_path) == (None, [])
    assert newest_intact(save(tmp_path, 8).parent)[0] == tmp_path / "checkpoint-8"


# Rotation


@settings(max_examples=examples(100), deadline=None)
@given(
    st.dictionaries(st.integers(0, 20), st.booleans(), max_size=6),
    st.integers(1, 5),
    st.sets(st.integers(0, 20), max_size=3),
)
def test_rotation_keeps_the_newest_intact_and_the_best(intact_by_step, limit, keep):
    with a_folder() as output:
        for step, intact in intact_by_step.items():
            folder = save(output, step, {"weights": b"w"})
            if not intact:
                damage(folder / "weights")
        rotate(output, limit, keep)
        left, intact = steps(output), sorted(step for step, intact in intact_by_step.items() if intact)
        assert [step for step in left if intact_by_step[step] and step not in keep] == [
            step for step in intact[-limit:] if step not in keep
        ]
        assert keep & set(intact_by_step) <= set(left)
        broken = {step for step, intact in intact_by_step.items() if not intact}
        assert broken & set(left) == {step for step in broken if not intact or step > intact[-1] or step in keep}
        assert not (output / ".saving").exists()


@pytest.mark.parametrize("limit", [None, 0, -1])
def test_without_a_limit_nothing_is_deleted(tmp_path, limit):
    for step in (2, 4, 6):
        save(tmp_path, step)
    damage(tmp_path / "checkpoint-2" / "optimizer.pt")
    rotate(tmp_path, limit)
    assert steps(tmp_path) == [2, 4, 6]


# Publishing


def test_a_published_model_is_all_of_the_model_and_nothing_else(tmp_path):
    model = ["config.json", "model.safetensors", "colbert_linear.pt", "training_args.bin", "2_Normalize/config.json"]
    rest = ["trainer_state.json", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth", "rng_state_1.pth"]
    rest += ["latest", "zero_to_fp32.py", "global_step8/mp_rank_00_model_states.pt"]
    folder = save(tmp_path, 8, {name: name.encode() for name in [*model, *rest]})
    (folder / "model.safetensors").chmod(0o640)
    (tmp_path / "config.json").write_text("of another run")
    publish(folder, tmp_path)
    published = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert {name for name in published if not name.startswith("checkpoint-")} == set(model)
    assert all((tmp_path / name).read_text() == name for name in model)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o640
    (tmp_path / "config.json").write_text("edited")
    assert flaw(folder) is None
