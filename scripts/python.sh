# The Python environment of the kit: found, or made in .venv. Sourced after lib.sh, never run.
# shellcheck shell=bash

VENV_DIR=$KIT_DIR/.venv
# The first of these that works makes .venv; a pyenv shim may be there and still not work.
PYTHON_NAMES=(python3 python3.12 python3.11 python3.10)
PIP_INSTALL=("$VENV_DIR/bin/python" -m pip install --disable-pip-version-check
  -r "$KIT_DIR/requirements.txt" -c "$KIT_DIR/constraints.txt")

# Prints the first requirement that is not met and fails, or prints the interpreter's own path.
CHECK_REQUIREMENTS='
import sys
from importlib.metadata import PackageNotFoundError, version

for line in open(sys.argv[1], encoding="utf-8"):
    name, _, wanted = line.partition("#")[0].strip().partition("==")
    if not name:
        continue
    try:
        installed = version(name)
    except PackageNotFoundError:
        sys.exit(print(f"it has no {name}") or 1)
    # A local part, such as the +cpu of a torch build, is no other version.
    if installed.partition("+")[0] != wanted:
        sys.exit(print(f"it has {name} {installed} instead of {wanted}") or 1)
print(sys.executable)
'

# usage: ensure_python   sets PYTHON to an interpreter that has the pinned packages, made first where there is none
ensure_python() {
  find_python && return
  [[ -w $KIT_DIR ]] ||
    die "cannot write to $KIT_DIR to set up Python there; make it writable, or set PYTHON to one that has requirements.txt"
  if have flock; then
    local lock
    exec {lock}>"$VENV_DIR.lock"
    flock --nonblock "$lock" || { say 'Python: another script is setting up .venv; waiting for it.' && flock "$lock"; }
    # The one waited for may have done it.
    venv_is_ready || make_venv
    exec {lock}>&-
  else
    make_venv
  fi
  use_python "$VENV_DIR/bin/python"
}

# usage: find_python     true when there is an environment to use, which is then set up; says which
find_python() {
  local given=${PYTHON:-python3} answer
  if answer=$("$given" -c "$CHECK_REQUIREMENTS" "$KIT_DIR/requirements.txt" 2>/dev/null); then
    say "Python: $answer, which has the pinned packages."
    use_python "$answer"
  elif venv_is_ready; then
    say "Python: $VENV_DIR/bin/python."
    use_python "$VENV_DIR/bin/python"
  else
    say "Python: $given is not enough (${answer:-it does not run}); the kit uses an environment of its own in $VENV_DIR."
    return 1
  fi
}

# usage: use_python PATH its folder goes first, for torchrun and for the ninja that DeepSpeed calls
use_python() {
  PYTHON=$1
  PATH=${PYTHON%/*}:$PATH
  export PATH
}

requirements_stamp() { cat -- "$KIT_DIR/requirements.txt" "$KIT_DIR/constraints.txt" | cksum; }

# The stamp is written last, so an install that was cut short has none and is done again.
venv_is_ready() {
  [[ -x $VENV_DIR/bin/python && -f $VENV_DIR/kit-stamp ]] && [[ $(<"$VENV_DIR/kit-stamp") == "$(requirements_stamp)" ]]
}

# usage: plan_venv       prints what make_venv would run
plan_venv() {
  if ! venv_works; then
    base_python=$(choose_base && printf '%s\n' "$base_python") || base_python=python3
    quote "$base_python" -m venv --clear "$VENV_DIR"
  fi
  quote "${PIP_INSTALL[@]}"
}

venv_works() { "$VENV_DIR/bin/python" -m pip --version >/dev/null 2>&1; }

make_venv() {
  local answer
  say 'Python: installing the pinned packages into .venv. This is done once: about 3 GB to download, 8 GB on disk, 5 to 20 minutes.'
  if ! venv_works; then
    choose_base
    answer=$("$base_python" -m venv --clear "$VENV_DIR" 2>&1) || die "$base_python could not make $VENV_DIR: $answer"
  fi
  rm -f -- "$VENV_DIR/kit-stamp"
  "${PIP_INSTALL[@]}" >&2 ||
    die 'pip could not install the packages (its message is above). Check the network and the space on the disk, then run the same command again; what is already there is kept'
  requirements_stamp >"$VENV_DIR/kit-stamp"
}

# usage: has_python_headers    true when extensions can be compiled for the Python in use
has_python_headers() {
  local python=${PYTHON:-python3}
  [[ ! -x $VENV_DIR/bin/python ]] || python=$VENV_DIR/bin/python
  "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.isfile(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null
}

# usage: choose_base     sets base_python, which makes .venv, or dies with what each candidate lacked
choose_base() {
  local name answer found='' no_venv=''
  for name in ${PYTHON:+"$PYTHON"} "${PYTHON_NAMES[@]}"; do
    have "$name" || continue
    # A shim without a version behind it fails here.
    answer=$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    if [[ $answer != 3.1[012] ]]; then
      found+=" $name is $answer;"
    elif ! "$name" -c 'import venv, ensurepip' 2>/dev/null; then
      no_venv=$answer
    else
      base_python=$name
      return
    fi
  done
  [[ -z $no_venv ]] || die "Python $no_venv has no venv module; install it: sudo apt install python$no_venv-venv"
  die "no Python 3.10, 3.11 or 3.12 found;$found install one (sudo apt install python3 python3-venv), or set PYTHON to its path"
}
