# Shared by the kit's scripts: sourced by them, never run. The caller sets `set -Eeuo pipefail` itself.
# shellcheck shell=bash disable=SC2034  # what is set here is used by those who source it

KIT_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
PROGRAM=${0##*/}

# M3KIT_DEBUG=1 shows every command with its file and line.
if [[ -n ${M3KIT_DEBUG:-} ]]; then
  PS4='+ ${BASH_SOURCE[0]##*/}:${LINENO}: '
  set -x
fi

# usage: say WORDS…      talk goes to stderr: stdout is kept for results
say() { printf '%s\n' "$*" >&2; }

# usage: warn WORDS…
warn() { printf '%s: warning: %s\n' "$PROGRAM" "$*" >&2; }

# usage: die WORDS…      name what was found, then what to type
die() {
  printf '%s: %s\n' "$PROGRAM" "$*" >&2
  exit 1
}

# usage: have COMMAND    true when COMMAND can be run
have() { command -v -- "$1" >/dev/null 2>&1; }

# usage: print_help FILE the comment at the head of FILE is its help, so the two cannot drift apart
print_help() { sed -n '1d; /^#/!q; s/^# \{0,1\}//p' "$1"; }

# usage: is_true VALUE   what a user may write for yes
is_true() { [[ ${1,,} == @(true|yes|on|1) ]]; }

# usage: quote WORDS…    one line that can be pasted into a shell
quote() {
  local word line=''
  for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
    line+=" $word"
  done
  printf '%s\n' "${line# }"
}

# usage: find_planner    sets planner to any Python 3.11 or newer: what plans a run uses the standard library alone
find_planner() {
  local name
  # A pyenv shim may be there and still not work.
  for name in ${PYTHON:+"$PYTHON"} "$KIT_DIR"/.venv{,-m3kit}/bin/python python3 python3.1{3,2,1,4}; do
    "$name" -c 'import sys; sys.exit(sys.hexversion < 0x30b0000)' 2>/dev/null && planner=$(type -P "$name") && break
  done
  [[ -n ${planner:-} ]] ||
    die 'no Python 3.11 or newer found; install one (sudo apt install python3 python3-venv), or set PYTHON to its path'
}

# usage: ensure_python   after find_planner; sets PYTHON to one that has the pinned packages, made first where there is none
ensure_python() {
  PYTHON=$(PROGRAM=$PROGRAM "$planner" -m m3kit.environment)
  # For torchrun, and for the ninja that DeepSpeed calls.
  PATH=${PYTHON%/*}:$PATH
  export PATH
}
