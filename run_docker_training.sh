#!/usr/bin/env bash
# Run the kit's training scripts in a Docker container, with the GPUs where there are any.
#
# Usage: run_docker_training.sh [WHAT [ARGUMENTS …]]
#
#   best          train on your data with settings chosen from it, on all GPUs (custom_data/, unless you give --train_data)
#   single        train on one GPU
#   multi         train on several GPUs
#   smoke         try everything in a few minutes, with or without a GPU
#   evaluate      compare models on test data; without ARGUMENTS the newest run with the model it began with
#   shell         a shell in the container
#   tensorboard   the curves of all runs, at http://localhost:6006
#   -- COMMAND …  any command in the container:   run_docker_training.sh -- python -m m3kit check custom_data
#   --help        this text
#
# Without WHAT it asks. ARGUMENTS go on to the training script, which explains them:  ./run_docker_training.sh single --help
#
# The container sees four folders of the kit: data/, custom_data/, outputs/ and cache/. Put your files into one of them
# and write paths as they are from here:
#   ./run_docker_training.sh best --train_data custom_data/retrieval --output_dir outputs/mine
#   TRAIN_DATA=custom_data/retrieval LEARNING_RATE=5e-6 ./run_docker_training.sh multi
# What it finds out is kept in .env, so that Compose typed by hand does the same:
#   docker-compose run --rm bge-m3-training bash
#
# Further environment: CUDA_VISIBLE_DEVICES chooses the GPUs; BASE_IMAGE and TORCH_INDEX_URL another CUDA (see Dockerfile);
# SHM_SIZE the shared memory (16gb); TENSORBOARD_PORT its port; HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT the Hub.

set -Eeuo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/scripts/lib.sh"
# shellcheck source=scripts/docker.sh
source "$KIT_DIR/scripts/docker.sh"
# shellcheck source=scripts/container.sh
source "$KIT_DIR/scripts/container.sh"
PROGRAM_ARGUMENTS=("$@")
SINGLE=./run_flagembedding_training_single_gpu.sh
MULTI=./run_flagembedding_training.sh
CHOICES=(best single multi smoke evaluate shell tensorboard)

main() {
  local what=${1:-} service=$NAME status=0
  local -a command=()
  (($# == 0)) || shift
  [[ $what != @(-h|--help) ]] || { print_help "$0" && exit; }
  { find_docker && find_compose; } || die "$problem"
  find_docker_gpu
  say "Docker $docker_version, Compose $compose_version, GPU: $($gpu && printf 'yes' || printf 'none') ($gpu_reason)."
  [[ -z $gpu_cure ]] || warn "the GPU cannot be used in a container; $gpu_cure"
  [[ -n $what ]] || choose
  case $what in
    best) set_best "$@" ;;
    single) command=("$SINGLE" "$@") ;;
    multi) command=("$MULTI" "$@") ;;
    smoke) command=("$SINGLE" --smoke "$@") ;;
    evaluate) command=(python -m m3kit evaluate "$@") ;;
    shell) command=(bash) ;;
    tensorboard) service=tensorboard ;;
    --) command=("$@") ;;
    *) die "there is no '$what'; what there is: ${CHOICES[*]}, -- COMMAND, --help" ;;
  esac
  case $what in
    best | single | multi) check_paths "${command[@]}" && check_device "$what" "$@" ;;
    smoke | evaluate) check_paths "${command[@]}" ;;
    --) (($#)) || die 'the command is missing; say, ./run_docker_training.sh -- python -m m3kit doctor' ;;
    shell | tensorboard) (($# == 0)) || die "$what takes no arguments; for a command of your own: ./run_docker_training.sh -- COMMAND" ;;
  esac

  cd -- "$KIT_DIR"
  settle_owner
  make_folders
  write_settings
  ensure_image
  if [[ $what == tensorboard ]]; then
    say "TensorBoard: open http://localhost:${TENSORBOARD_PORT:-6006} in a browser; Ctrl-C ends it."
  else
    try_gpu
  fi
  run_container "$service" "${command[@]}" || status=$?
  if [[ $what == smoke && $status == 0 ]]; then
    printf '\nAll works. What can be typed now:\n'
    printf '  %s\n' './run_docker_training.sh    asks what to run' "${COMPOSE[*]} run --rm $NAME bash    a shell in the container" \
      './run_docker_training.sh best --train_data custom_data/YOURS --output_dir outputs/YOURS    trains on your rows'
  elif [[ $what == smoke && $status != @(129|130|143) ]]; then
    say "$PROGRAM: the smoke test failed; what is wrong stands in the lines above. Put it right and run this again"
  fi
  exit "$status"
}

# usage: choose          asks, and sets what; an end of the input is a polite no
choose() {
  local name number=0 mark answer default=smoke reason='no GPU for the container'
  if $gpu && has_own_data; then
    default=best reason='your data in custom_data/'
  elif $gpu; then
    default=multi reason="$gpu_count GPUs"
    ((gpu_count > 1)) || default=single reason='one GPU'
  fi
  say '' && say 'What shall run?'
  for name in "${CHOICES[@]}" quit; do
    number=$((number + 1)) mark=''
    [[ $name != "$default" ]] || mark="   <- Enter ($reason)"
    say "  $number) $(printf '%-12s' "$name") $(print_help "$0" | sed -n "s/^  $name  *//p")$mark"
  done
  while true; do
    printf 'Number or name: ' >&2
    if ! read -r answer; then
      say '' && say 'Nothing chosen, nothing done. Without questions: ./run_docker_training.sh --help'
      exit 0
    fi
    answer=${answer//[[:space:]]/}
    answer=${answer:-$default}
    [[ $answer != [1-8] ]] || answer=${CHOICES[answer - 1]:-quit}
    [[ $answer != @(quit|q) ]] || exit 0
    if [[ " ${CHOICES[*]} " == *" $answer "* ]]; then
      what=$answer
      return
    fi
    say "There is no '$answer'; a number from 1 to 8, please, or Enter for $default."
  done
}

# usage: has_own_data    true when there is a file in custom_data/, or in a folder of it, that is not hidden
has_own_data() { [[ -n $(find "$KIT_DIR/custom_data" -type f -name '[!.]*' -print -quit 2>/dev/null) ]]; }

# usage: set_best ARGUMENTS…    sets command; an argument that comes later wins
set_best() {
  command=("$SINGLE" --recipe best)
  ! $gpu || ((gpu_count < 2)) || command[0]=$MULTI
  if [[ -z ${TRAIN_DATA:-} && " $*" != *' '@(--train[_-]data|-h|--help|--smoke)* ]]; then
    has_own_data ||
      die "custom_data/ is empty: put your rows there, say custom_data/retrieval/train.jsonl, or give --train_data; README says what a row looks like"
    command+=(--train_data custom_data --output_dir "${OUTPUT_DIR:-outputs/best}")
  fi
  command+=("$@")
}

# usage: check_paths ARGUMENTS…    the container does not see the rest of this machine, and what it writes elsewhere is lost
check_paths() {
  local word value previous='' kit='data/, custom_data/, outputs/ and cache/'
  local -a words
  IFS=: read -r -a words <<<"${MODEL_NAME_OR_PATH:-}:${TRAIN_DATA:-}:${EVAL_DATA:-}:${CACHE_DIR:-}"
  [[ -z ${OUTPUT_DIR:-} || " $*" == *' --output'[_-]dir* ]] || words+=(--output_dir "$OUTPUT_DIR")
  for word in "${words[@]}" "$@"; do
    # As in --eval_data=PATH and NAME=PATH.
    value=${word##*=}
    if [[ $previous == --output[_-]dir || $word == --output[_-]dir=* ]]; then
      [[ ${value#/workspace/} == ?(./)@(data|custom_data|outputs|cache)/?* ]] ||
        die "the output folder $value would be lost with the container, which keeps only $kit. Give, say, outputs/${value##*/}"
    elif [[ $value == /* && $value != /workspace/* ]]; then
      die "the container does not see $value: it sees $kit of $KIT_DIR. Put it there and write, say, custom_data/${value##*/}"
    fi
    previous=$word
  done
}

# usage: check_device WHAT ARGUMENTS…    a model of 568 million parameters on a CPU is rarely what was meant
check_device() {
  ! $gpu || return 0
  ! is_true "${ALLOW_CPU:-$(env_value ALLOW_CPU)}" || return 0
  [[ " $*" != *' '@(-h|--help|--dry-run|--dry_run|--smoke|--allow_cpu)* ]] || return 0
  die "no GPU for the container ($gpu_reason), so training would run on the CPU, which takes days rather than hours.
To try the kit in a few minutes:  ./run_docker_training.sh smoke
To train on the CPU all the same: ALLOW_CPU=true ./run_docker_training.sh $1"
}

main "$@"
