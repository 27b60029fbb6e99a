#!/usr/bin/env bats
# The Python environment, found or made. With fakes; at the end with real ones, and without a network.
# shellcheck disable=SC2154,SC2030,SC2031  # run sets output and status; every test is a subshell, and means to be

bats_require_minimum_version 1.5.0
load helpers/kit.bash

setup() { make_kit; }

# usage: in_kit COMMANDS    in the throw-away kit, after what a script does first
in_kit() {
  # shellcheck disable=SC2016  # the arguments of that shell
  (cd -- "$KIT" && bash -Eeuo pipefail -c 'source scripts/lib.sh; find_planner; eval "$1"' kit "$1")
}

# usage: ensure          what a script does before its first step; prints the interpreter that it will use
ensure() {
  # shellcheck disable=SC2016  # PYTHON is that shell's
  in_kit 'ensure_python; printf "%s\n" "$PYTHON"'
}

planner() {
  # shellcheck disable=SC2016  # planner is that shell's
  in_kit 'printf "%s\n" "$planner"'
}

# usage: users_venv [SCRIPT]    a .venv that its user has made, with a file of the user's in it; what its Python does
users_venv() {
  mkdir -p "$KIT/.venv/bin"
  BIN=$KIT/.venv/bin fake python "${1:-exit 127}"
  echo mine >"$KIT/.venv/marker"
}

fake_uv() {
  # shellcheck disable=SC2016  # the arguments of the fake
  fake uv 'echo "uv $*" >>"$LOG"
    [[ $1 != "${FAKE_FAILS:-}" ]] || exit 1
    [[ $1 == pip ]] || { mkdir -p "${!#}/bin"; cp -- "$(type -P python3)" "${!#}/bin/python"; }'
}

# ---- what is used -----------------------------------------------------------------------------------------------------

@test "a Python that has the pinned packages is used as it is" {
  run --separate-stderr ensure
  [[ $output == "$BIN/python3" ]]
  [[ ! -e $KIT/.venv && ! -e $LOG ]]
}

@test "the check reads the pinned versions: missing, other, and with a local part" {
  check=$(<"$KIT/m3kit/installed.py")
  mkdir -p site/torch-2.13.0+cpu.dist-info
  printf 'Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0+cpu\n' >site/torch-2.13.0+cpu.dist-info/METADATA
  real=$(PATH=$REAL_PATH type -P python3)
  printf '# pinned\n\ntorch==2.13.0  # comment\n' >good.txt
  PATH=$REAL_PATH PYTHONPATH=site run "$real" -c "$check" good.txt
  ((status == 0))
  echo 'torch==2.12.0' >other.txt
  PATH=$REAL_PATH PYTHONPATH=site run "$real" -c "$check" other.txt
  ((status == 1))
  says 'it has torch 2.13.0+cpu instead of 2.12.0'
  echo 'no-such-package-here==1' >missing.txt
  PATH=$REAL_PATH run "$real" -c "$check" missing.txt
  ((status == 1))
  says 'it has no no-such-package-here'
}

@test "a .venv of the user that has the pinned packages is used" {
  # shellcheck disable=SC2016  # the fake's own path
  users_venv '[[ $2 != *hexversion* ]] && echo "$0"'
  FAKE_LACKS=torch run --separate-stderr ensure
  [[ $output == "$KIT/.venv/bin/python" ]] || fail "$output $stderr"
  [[ ! -e $KIT/.venv-m3kit && ! -e $LOG && ! -e $KIT/.venv/kit-stamp ]]
}

@test "the planner takes any Python 3.11 or newer: PYTHON, the kit's own, python3, others by their names" {
  FAKE_LACKS=torch ensure
  run planner
  [[ $output == "$KIT/.venv/bin/python" ]]
  rm -r "$KIT/.venv"
  run planner
  [[ $output == "$BIN/python3" ]]
  cp "$BIN/python3" "$BIN/python3.12"
  PYTHON=$BIN/python3.12 run planner
  [[ $output == "$BIN/python3.12" ]]
  fake python3 'exit 127'
  run planner
  [[ $output == "$BIN/python3.12" ]]
  rm "$BIN/python3.12"
  run planner
  ((status == 1))
  says 'no Python 3.11 or newer found'
  # what counts is what a real one answers
  old=$(PATH=$REAL_PATH type -P python3.10 || PATH=$REAL_PATH type -P python2) || skip 'no old Python here'
  PYTHON=$old run planner
  ((status == 1))
}

# ---- what is made -----------------------------------------------------------------------------------------------------

@test "otherwise .venv is made once, with all pins, and the size and the time are told" {
  export FAKE_LACKS=torch
  run --separate-stderr ensure
  ((status == 0))
  [[ $output == "$KIT/.venv/bin/python" ]]
  [[ $stderr == *'it has no torch'*'GB to download'*minutes* ]]
  logged "python3 -m venv $KIT/.venv"
  logged "python -m pip install --disable-pip-version-check -r $KIT/requirements.txt -c $KIT/constraints.txt"
  rm "$LOG"
  run --separate-stderr ensure
  ((status == 0))
  [[ $output == "$KIT/.venv/bin/python" && ! -e $LOG ]]
}

@test "uv makes and fills the environment where it is there, also without the venv module" {
  fake_uv
  export FAKE_LACKS=torch FAKE_NO_VENV=1
  run --separate-stderr ensure
  [[ $output == "$KIT/.venv/bin/python" ]]
  logged "uv venv --quiet --seed --allow-existing --python python3 $KIT/.venv"
  logged "uv pip install --python $KIT/.venv/bin/python -r $KIT/requirements.txt -c $KIT/constraints.txt"
  rm "$LOG"
  ensure
  [[ ! -e $LOG ]]
  # and finds a Python, or fetches one, where there is none that fits
  rm -r "$KIT/.venv"
  FAKE_VERSION=3.9 ensure
  logged 'uv venv --quiet --seed --allow-existing --python >=3.11,<3.15 '
}

@test "a dry run shows what would be run, and makes nothing" {
  export FAKE_LACKS=torch
  run --separate-stderr "$SINGLE" --dry-run
  [[ ${lines[1]} == 'python3 -m venv '* && ${lines[2]} == *'/.venv/bin/python'*' -m pip install '* ]]
  fake_uv
  users_venv
  run --separate-stderr "$SINGLE" --dry-run
  [[ ${lines[1]} == 'uv venv '*.venv-m3kit* && ${lines[2]} == 'uv pip install '*.venv-m3kit/bin/python* ]]
  [[ ! -e $LOG && ! -e $KIT/.venv-m3kit ]]
}

@test "a .venv that the kit did not make is left as it is, and another folder taken" {
  users_venv
  before=$(cd "$KIT/.venv" && printf '%s\n' *)
  export FAKE_LACKS=torch
  run --separate-stderr ensure
  ((status == 0))
  [[ $output == "$KIT/.venv-m3kit/bin/python" ]]
  [[ $stderr == *"an environment of its own in $KIT/.venv-m3kit; .venv is not the kit's"*'is left as it is'* ]]
  [[ $(<"$KIT/.venv/marker") == mine && $(cd "$KIT/.venv" && printf '%s\n' *) == "$before" ]]
  rm "$LOG"
  # it stays there when .venv goes
  rm -r "$KIT/.venv"
  run --separate-stderr ensure
  [[ $output == "$KIT/.venv-m3kit/bin/python" && ! -e $LOG ]]
}

@test "nor is anything but the kit's taken for .venv-m3kit" {
  users_venv
  cp -r "$KIT/.venv" "$KIT/.venv-m3kit"
  FAKE_LACKS=torch run ensure
  ((status == 1))
  says '.venv-m3kit was not made by the kit'
  says 'move it away, or set PYTHON'
  [[ -e $KIT/.venv-m3kit/marker && ! -e $LOG ]]
}

@test ".venv is brought up to date when the pins change" {
  export FAKE_LACKS=torch
  ensure
  for file in requirements constraints; do
    rm "$LOG"
    echo '# changed' >>"$KIT/$file.txt"
    ensure
    logged 'pip install'
    run grep -c 'm venv' "$LOG"
    ((status == 1))
  done
}

@test "an install that failed or was cut short is finished, in the same place" {
  export FAKE_LACKS=torch
  FAKE_FAILS=pip run ensure
  ((status == 1))
  says 'the packages could not be installed'
  says 'run the same command again'
  rm "$LOG"
  run --separate-stderr ensure
  [[ $output == "$KIT/.venv/bin/python" ]]
  logged 'pip install'
  # killed while it was made: it has the stamp alone
  rm -r "$KIT/.venv" "$LOG"
  mkdir "$KIT/.venv"
  echo begun >"$KIT/.venv/kit-stamp"
  run --separate-stderr ensure
  [[ $output == "$KIT/.venv/bin/python" && ! -e $KIT/.venv-m3kit ]]
  logged 'm venv '
  logged 'pip install'
}

@test "a .venv of the kit whose Python is gone is made anew" {
  export FAKE_LACKS=torch
  ensure
  rm "$KIT/.venv/bin/python" "$LOG"
  echo '# changed' >>"$KIT/requirements.txt"
  ensure
  logged 'm venv '
  logged 'pip install'
}

@test "two scripts at once set up one environment, one after the other" {
  export FAKE_LACKS=torch FAKE_PIP_SECONDS=1
  ensure 3>&- &
  sleep 0.3
  run --separate-stderr ensure
  wait $!
  ((status == 0))
  [[ $stderr == *'waiting for it'* ]]
  [[ $(grep -c 'pip install' "$LOG") == 1 ]]
}

@test "the first interpreter that works makes .venv: not a shim without Python, not one of another version" {
  fake python3 'exit 127'
  cp "$SOURCE/tests/helpers/fake_python3.bash" "$BIN/python3.11"
  # shellcheck disable=SC2016  # the fake's own arguments
  fake python3.12 '[[ $2 != *hexversion* ]] && echo 3.15'
  export FAKE_LACKS=torch
  run --separate-stderr ensure
  ((status == 0))
  logged 'python3.11 -m venv'
}

@test "no suitable Python, or none with venv: says what to install" {
  export FAKE_LACKS=torch
  for version in 3.9 3.10 3.15; do
    FAKE_VERSION=$version run ensure
    ((status == 1))
    says "python3 is $version"
    says 'apt install python3 python3-venv'
  done
  FAKE_BROKEN=1 run ensure
  ((status == 1))
  says 'no Python 3.11 or newer found'
  FAKE_NO_VENV=1 run ensure
  ((status == 1))
  says 'sudo apt install python3.11-venv'
  [[ ! -e $LOG && ! -e $KIT/.venv ]]
}

@test "the environment's own torchrun and ninja are found first" {
  export FAKE_LACKS=torch
  gpus 1
  ensure
  cp "$SOURCE/tests/helpers/fake_torchrun.bash" "$KIT/.venv/bin/torchrun"
  rm "$BIN/torchrun"
  run "$SINGLE" --output_dir out
  ((status == 0)) || fail "$output"
  logged 'word m3kit.training'
  # and without the command, its module
  rm "$KIT/.venv/bin/torchrun" "$LOG"
  run "$SINGLE" --output_dir out
  ((status == 0))
  logged 'python -m torch.distributed.run --standalone --local-addr 127.0.0.1 --nproc_per_node 1 --shutdown-timeout 600 -m m3kit.training'
}

# ---- with real ones ---------------------------------------------------------------------------------------------------

# usage: real_environment    a kit whose only requirement is a wheel on this disk, with the tools of this machine
real_environment() {
  PATH=$REAL_PATH
  python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || skip 'the python3 here does not fit'
  echo 'kitpin==1.0' >"$KIT/requirements.txt"
  : >"$KIT/constraints.txt"
  cd "$BATS_TEST_TMPDIR" || return
  mkdir wheels
  # uv puts pip into what it makes, for its users, and beside old Pythons the two others.
  python3 - <<'END'
from zipfile import ZipFile

for name in ("kitpin", "setuptools", "wheel"):
    info = f"{name}-1.0.dist-info"
    with ZipFile(f"wheels/{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"{name}.py,,\n")
END
  cp "$(python3 -c 'import ensurepip; print(ensurepip.__path__[0])')"/_bundled/pip-*.whl wheels
  export PIP_NO_INDEX=1 PIP_FIND_LINKS=$PWD/wheels UV_NO_INDEX=1 UV_OFFLINE=1 UV_FIND_LINKS=$PWD/wheels
  export UV_CACHE_DIR=$PWD/cache
}

# bats test_tags=slow
@test "a real .venv of the user stays, and a real environment is made beside it" {
  real_environment
  python3 -m venv --without-pip "$KIT/.venv"
  echo mine >"$KIT/.venv/marker"
  run --separate-stderr ensure
  [[ $output == "$KIT/.venv-m3kit/bin/python" ]] || fail "$output $stderr"
  "$output" -c 'import kitpin'
  [[ $(<"$KIT/.venv/marker") == mine && ! -e $KIT/.venv/kit-stamp ]]
}

# bats test_tags=slow
@test "a real environment that uv makes, in which an install was cut short" {
  real_environment
  type -P uv >/dev/null || skip 'no uv here'
  echo 'kitpin==2.0' >"$KIT/requirements.txt"
  run ensure
  ((status == 1))
  [[ $(<"$KIT/.venv/kit-stamp") == begun ]]
  echo 'kitpin==1.0' >"$KIT/requirements.txt"
  run --separate-stderr ensure
  [[ $output == "$KIT/.venv/bin/python" ]] || fail "$output $stderr"
  "$output" -c 'import kitpin'
}
