#!/usr/bin/env bash
# From nothing to a first trained model in Docker: check this machine, build the image, run the smoke test in it.
#
# Usage: docker_quick_start.sh [--check]
#
#   --check   only look; change and build nothing
#   --help    this text
#
# The smoke test trains a tiny model on the example data, on the CPU where there is no GPU. Run this as often as you like:
# what is done is not done again. Exit code 0: all is well. Another one: what to do is in the last line.

set -Eeuo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/scripts/lib.sh"
# shellcheck source=scripts/docker.sh
source "$KIT_DIR/scripts/docker.sh"

main() {
  local stops=0
  case $* in
    '' | --check) ;;
    -h | --help) print_help "$0" && exit ;;
    *) die "there is no option '$*'; see --help. For training: ./run_docker_training.sh" ;;
  esac
  say '== Checking this machine'
  look
  ((stops == 0)) || die "$stops of these must be put right first; what to type stands beside it"
  if (($#)); then
    say 'Nothing stands in the way. Next: ./docker_quick_start.sh'
    exit
  fi
  exec "$KIT_DIR/run_docker_training.sh" smoke
}

# usage: look            prints what is there, a line each; adds to stops what ends it
look() {
  if find_docker; then finding ok "Docker $docker_version"; else finding stop "$problem"; fi
  have docker || return 0
  if find_compose; then finding ok "Compose $compose_version (${COMPOSE[*]})"; else finding stop "$problem"; fi
  ((stops == 0)) || return 0
  find_docker_gpu
  if $gpu; then
    finding ok "GPU: $gpu_reason, and Docker has the nvidia runtime"
  else
    finding note "no GPU for the container ($gpu_reason): the smoke test runs on the CPU; training proper needs a GPU${gpu_cure:+. To use it, $gpu_cure}"
  fi
  look_for_space "${docker_info%%$'\n'*}" "$IMAGE_GB" 'the image'
  look_for_space "$KIT_DIR" "$RUN_GB" 'a training run'
}

# usage: finding LEVEL WORDS…    ok, note (works, but less or slower) or stop
finding() {
  [[ $1 != stop ]] || stops=$((stops + 1))
  say "$(printf '%5s' "$1")  ${*:2}"
}

# usage: look_for_space FOLDER GB FOR-WHAT    only a note: how much is used depends on what is there already
look_for_space() {
  local free
  # Docker's folder may be on another machine, or in a virtual one.
  if ! free=$(free_gb "$1"); then
    finding note "free space for $3 not known; $2 GB are needed"
  elif ((free < $2)); then
    finding note "only $free GB free at $1; $3 needs $2 GB unless it is there already. To see what Docker holds: docker system df"
  else
    finding ok "$free GB free at $1; $3 needs $2 GB"
  fi
}

main "$@"
