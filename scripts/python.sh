# The Python environment of the kit: found, or made in .venv. Sourced after lib.sh, never run.
# shellcheck shell=bash

# kit-stamp marks an environment that the kit has made: "begun", then what it was made of. A .venv without it is the
# user's: it may be used, and is never changed.
VENV_DIR=$KIT_DIR/.venv
[[ -e $VENV_DIR/kit-stamp || ! -e $VENV_DIR && ! -e $VENV_DIR-m3kit ]] || VENV_DIR+=-m3kit
# The first of these that works makes the environment; a pyenv shim may be there and still not work.
PYTHON_NAMES=(python3 python3.13 python3.12 python3.11 python3.14)
PINS=(-r "$KIT_DIR/requirements.txt" -c "$KIT_DIR/constraints.txt")

# Prints the first requirement that is not met and fails, or prints the interpreter's own path.
CHECK_REQUIREMENTS=$(<"$KIT_DIR/m3kit/installed.py")

# usage: plan_python     prints the path of any Python 3.11 or newer, for code of the standard library; fails without one
plan_python() {
  local name
  for name in "$VENV_DIR/bin/python" ${PYTHON:+"$PYTHON"} "${PYTHON_NAMES[@]}"; do
    "$name" -c 'import sys; sys.exit(sys.hexversion < 0x30b0000)' 2>/dev/null && type -P "$name" && return
  done
  return 1
}

# usage: ensure_python   sets PYTHON to an interpreter that has the pinned packages, made first where there is none
ensure_python() {
  find_python && return
  [[ -w $KIT_DIR ]] ||
    die "cannot write to $KIT_DIR to set up Python there; make it writable, or set PYTHON to one that has requirements.txt"
  if have flock; then
    local lock
    exec {lock}>"$KIT_DIR/.venv.lock"
    flock --nonblock "$lock" || { say 'Python: another script is setting it up; waiting for it.' && flock "$lock"; }
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
  local given=${PYTHON:-python3} users=$KIT_DIR/.venv found lacks kept=''
  if found=$(check_python "$given"); then
    say "Python: $found, which has the pinned packages."
  elif lacks=${found:-it does not run} && venv_is_ready; then
    found=$VENV_DIR/bin/python
    say "Python: $found."
  elif [[ $VENV_DIR != "$users" ]] && found=$(check_python "$users/bin/python"); then
    say "Python: $found, which has the pinned packages."
  else
    [[ $VENV_DIR == "$users" ]] || kept="; .venv is not the kit's (no kit-stamp in it) and is left as it is"
    say "Python: $given is not enough ($lacks); the kit uses an environment of its own in $VENV_DIR$kept."
    return 1
  fi
  use_python "$found"
}

check_python() { "$1" -c "$CHECK_REQUIREMENTS" "$KIT_DIR/requirements.txt" 2>/dev/null; }

# usage: use_python PATH its folder goes first, for torchrun and for the ninja that DeepSpeed calls
use_python() {
  PYTHON=$1
  PATH=${PYTHON%/*}:$PATH
  export PATH
}

requirements_stamp() { cat -- "$KIT_DIR/requirements.txt" "$KIT_DIR/constraints.txt" | cksum; }

venv_is_ready() {
  [[ -x $VENV_DIR/bin/python && -f $VENV_DIR/kit-stamp ]] && [[ $(<"$VENV_DIR/kit-stamp") == "$(requirements_stamp)" ]]
}

# usage: plan_venv       prints what make_venv would run
plan_venv() {
  local base_python make_command install_command
  if ! venv_works; then
    base_python=$(choose_base && printf '%s\n' "$base_python") || base_python=python3
  fi
  set_venv_commands
  ((${#make_command[@]} == 0)) || quote "${make_command[@]}"
  quote "${install_command[@]}"
}

# Of a version that the kit takes, and whole.
venv_works() {
  "$VENV_DIR/bin/python" -c 'import sys, pip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1
}

# Sets make_command and install_command. uv is much faster than pip; --seed, for who wants to add a package with pip.
set_venv_commands() {
  make_command=() install_command=("$VENV_DIR/bin/python" -m pip install --disable-pip-version-check "${PINS[@]}")
  [[ -z $base_python ]] || make_command=("$base_python" -m venv "$VENV_DIR")
  have uv || return 0
  install_command=(uv pip install --python "$VENV_DIR/bin/python" "${PINS[@]}")
  [[ -z $base_python ]] || make_command=(uv venv --quiet --seed --allow-existing --python "$base_python" "$VENV_DIR")
}

make_venv() {
  local base_python='' make_command install_command answer
  [[ ! -e $VENV_DIR || -e $VENV_DIR/kit-stamp ]] ||
    die "$VENV_DIR was not made by the kit (no kit-stamp in it); move it away, or set PYTHON to one that has requirements.txt"
  say "Python: installing the pinned packages into ${VENV_DIR##*/}. This is done once: about 3 GB to download, 8 GB on disk, 5 to 20 minutes. How far it is: tail -f $(quote "$VENV_DIR/install.log")"
  venv_works || choose_base
  set_venv_commands
  mkdir -p -- "$VENV_DIR"
  echo begun >"$VENV_DIR/kit-stamp"
  if [[ -n $base_python ]]; then
    # What is left of an earlier one would be in the way. The stamp stays: without it the folder would be the user's.
    rm -rf -- "${VENV_DIR:?}"/{bin,include,lib,lib64,pyvenv.cfg}
    answer=$("${make_command[@]}" 2>&1) || die "$base_python could not make $VENV_DIR: $answer"
  fi
  "${install_command[@]}" >"$VENV_DIR/install.log" 2>&1 || {
    tail -n 15 -- "$VENV_DIR/install.log" >&2
    die 'the packages could not be installed (the message is above). Check the network and the space on the disk, then run the same command again; what is already there is kept'
  }
  requirements_stamp >"$VENV_DIR/kit-stamp"
}

# usage: has_python_headers    true when extensions can be compiled for the Python in use
has_python_headers() {
  local python=${PYTHON:-python3}
  [[ ! -x $VENV_DIR/bin/python ]] || python=$VENV_DIR/bin/python
  "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.isfile(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null
}

# usage: choose_base     sets base_python, which makes the environment, or dies with what each candidate lacked
choose_base() {
  local name answer found='' no_venv=''
  for name in ${PYTHON:+"$PYTHON"} "${PYTHON_NAMES[@]}"; do
    have "$name" || continue
    # A shim without a version behind it fails here.
    answer=$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    if [[ $answer != 3.1[1-4] ]]; then
      found+=" $name is $answer;"
    elif have uv || "$name" -c 'import venv, ensurepip' 2>/dev/null; then
      base_python=$name
      return
    else
      no_venv=$answer
    fi
  done
  # uv finds others, or fetches one.
  ! have uv || { base_python='>=3.11,<3.15' && return; }
  [[ -z $no_venv ]] || die "Python $no_venv has no venv module; install it: sudo apt install python$no_venv-venv"
  die "no Python 3.11 to 3.14 found;$found install one (sudo apt install python3 python3-venv), or set PYTHON to its path"
}
