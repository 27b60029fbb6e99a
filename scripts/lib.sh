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
print_help() {
  local line
  while IFS= read -r line; do
    case $line in
      '#!'*) ;;
      '#'*) line=${line#'#'} && printf '%s\n' "${line#' '}" ;;
      *) break ;;
    esac
  done <"$1"
}

# usage: is_true VALUE   what a user may write for yes
is_true() { [[ ${1,,} == @(true|yes|on|1) ]]; }

# usage: count_gpus      sets gpu_count, and gpu_reason: how that number came about
count_gpus() {
  local listed entry
  gpu_count=0
  if ! have nvidia-smi; then
    gpu_reason='nvidia-smi is not installed'
    return
  fi
  if ! listed=$(nvidia-smi -L 2>&1); then
    gpu_reason="nvidia-smi failed: ${listed%%$'\n'*}"
    return
  fi
  while IFS= read -r entry; do
    [[ $entry != 'GPU '* ]] || gpu_count=$((gpu_count + 1))
  done <<<"$listed"
  gpu_reason="nvidia-smi lists $gpu_count"
  [[ -v CUDA_VISIBLE_DEVICES && $gpu_count -gt 0 ]] || return 0

  # As CUDA reads it: numbers or ids, and everything from the first impossible one on does not count.
  local -a wanted=()
  local found=$gpu_count
  IFS=, read -r -a wanted <<<"$CUDA_VISIBLE_DEVICES"
  gpu_count=0
  gpu_reason="CUDA_VISIBLE_DEVICES='$CUDA_VISIBLE_DEVICES' of the $found that nvidia-smi lists"
  for entry in "${wanted[@]}"; do
    entry=${entry// /}
    [[ $entry == @(GPU|MIG)-* ]] || { [[ $entry =~ ^[0-9]+$ ]] && ((10#$entry < found)); } || break
    gpu_count=$((gpu_count + 1))
  done
}

# usage: quote WORDS…    one line that can be pasted into a shell
quote() {
  local word line=''
  for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
    line+=" $word"
  done
  printf '%s\n' "${line# }"
}
