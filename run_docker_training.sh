#!/usr/bin/env bash
# Run the kit's training scripts in a Docker container, with the GPUs where there are any.
#
# Usage: run_docker_training.sh [WHAT [ARGUMENTS …]]
#
#   best          train on your data with settings chosen from it (recipe=best), on all GPUs; custom_data/ where nothing
#                 else is given:         run_docker_training.sh best --train_data custom_data/mine --output_dir outputs/mine
#   single        train on one GPU:        run_flagembedding_training_single_gpu.sh ARGUMENTS …
#   multi         train on several GPUs:   run_flagembedding_training.sh ARGUMENTS …
#   smoke         try everything in a few minutes, with or without a GPU
#   evaluate      compare models on test data; without ARGUMENTS the newest run with its base:  python -m m3kit evaluate
#   shell         a shell in the container
#   tensorboard   the curves of all runs, at http://localhost:6006
#   -- COMMAND …  any command in the container:   run_docker_training.sh -- python -m m3kit check custom_data
#   --help        this text
#
# Without WHAT it asks. ARGUMENTS go on to the training script, which explains them:  ./run_docker_training.sh single --help
#
# The container sees four folders of the kit: data/, custom_data/, outputs/ and cache/. Put your files into one of them
# and write paths as they are from here:
#
#   ./run_docker_training.sh single --train_data custom_data/retrieval --output_dir outputs/mine
#   TRAIN_DATA=custom_data/retrieval LEARNING_RATE=5e-6 ./run_docker_training.sh multi
#
# What it finds out is kept in .env, so that Compose typed by hand does the same:
#
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

main() {
  local what=${1:-}
  (($# == 0)) || shift
  case $what in
    -h | --help) print_help "$0" && exit ;;
    '' | best | single | multi | smoke | evaluate) ;;
    shell | tensorboard) (($# == 0)) || die "$what takes no arguments; for a command of your own: ./run_docker_training.sh -- COMMAND" ;;
    --) (($#)) || die 'the command is missing; say, ./run_docker_training.sh -- python -m m3kit doctor' ;;
    *) die "there is no '$what'; what there is: best, single, multi, smoke, evaluate, shell, tensorboard, -- COMMAND, --help" ;;
  esac
  [[ $KIT_DIR != *:* ]] || die "the folder $KIT_DIR has a ':' in its name, which Docker takes for a separator; rename it"
  find_docker || die "$problem"
  find_compose || die "$problem"
  find_docker_gpu
  say "Docker $docker_version, Compose $compose_version, GPU: $($gpu && printf 'yes' || printf 'none') ($gpu_reason)."
  [[ -z $gpu_cure ]] || warn "the GPU cannot be used in a container; $gpu_cure"
  [[ -n $what ]] || choose
  case $what in
    best) settle_best "$@" && set -- "${best_arguments[@]}" && check_paths "$@" && check_device best "$@" ;;
    single | multi) check_paths "$@" && check_device "$what" "$@" ;;
    smoke | evaluate) check_paths "$@" ;;
  esac

  cd -- "$KIT_DIR"
  settle_owner
  make_folders
  write_settings
  ensure_image
  ! $gpu || [[ $what == tensorboard ]] || try_gpu
  case $what in
    best) set -- "$best_script" "$@" ;;
    single) set -- ./run_flagembedding_training_single_gpu.sh "$@" ;;
    multi) set -- ./run_flagembedding_training.sh "$@" ;;
    smoke) set -- ./run_flagembedding_training_single_gpu.sh --smoke "$@" ;;
    evaluate) set -- python -m m3kit evaluate "$@" ;;
    shell) set -- bash ;;
    tensorboard)
      say "TensorBoard: open http://localhost:${TENSORBOARD_PORT:-6006} in a browser; Ctrl-C ends it."
      run_container tensorboard
      return
      ;;
  esac
  run_container "$SERVICE" "$@"
}

# usage: choose          asks, and sets what; an end of the input is a polite no
choose() {
  local -a names=(best single multi smoke evaluate shell tensorboard quit)
  local answer number default=smoke reason='no GPU for the container'
  if $gpu && has_own_data; then
    default=best reason='your data in custom_data/'
  elif $gpu && ((gpu_count == 1)); then
    default=single reason='one GPU'
  elif $gpu; then
    default=multi reason="$gpu_count GPUs"
  fi
  local -A about=(
    [best]='train on your data in custom_data/, with settings chosen from it'
    [single]='train on one GPU'
    [multi]='train on several GPUs'
    [smoke]='try everything in a few minutes, with or without a GPU'
    [evaluate]='compare the newest run with the model it began with'
    [shell]='a shell in the container'
    [tensorboard]='the curves of all runs'
    [quit]='nothing'
  )
  say '' && say 'What shall run?'
  for number in "${!names[@]}"; do
    answer=${names[number]}
    say "  $((number + 1))) $(printf '%-12s' "$answer") ${about[$answer]}$([[ $answer != "$default" ]] || printf '   <- Enter (%s)' "$reason")"
  done
  while true; do
    printf 'Number or name: ' >&2
    if ! read -r answer; then
      say '' && say 'Nothing chosen, nothing done. Without questions: ./run_docker_training.sh --help'
      exit 0
    fi
    answer=${answer//[[:space:]]/}
    [[ $answer != [1-8] ]] || answer=${names[answer - 1]}
    answer=${answer:-$default}
    [[ $answer != @(quit|q) ]] || exit 0
    if [[ -n ${about[$answer]:-} ]]; then
      what=$answer
      return
    fi
    say "There is no '$answer'; a number from 1 to 8, please, or Enter for $default."
  done
}

# usage: has_own_data    true when there is a file in custom_data/, or in a folder of it, that is not hidden
has_own_data() {
  local path
  for path in "$KIT_DIR"/custom_data/* "$KIT_DIR"/custom_data/*/*; do
    [[ ! -f $path ]] || return 0
  done
  return 1
}

# usage: settle_best ARGUMENTS…    sets best_script and best_arguments
settle_best() {
  local word own=true
  best_script=./run_flagembedding_training_single_gpu.sh best_arguments=(--recipe best "$@")
  ! $gpu || ((gpu_count < 2)) || best_script=./run_flagembedding_training.sh
  for word; do
    [[ $word != @(--train[_-]data*|-h|--help|--smoke) ]] || own=false
  done
  [[ -z ${TRAIN_DATA:-} ]] || own=false
  $own || return 0
  has_own_data ||
    die "custom_data/ is empty: put your rows there, say custom_data/retrieval/train.jsonl, or give --train_data; README says what a row looks like"
  best_arguments+=(--train_data custom_data)
  [[ " $* ${OUTPUT_DIR:+--output_dir}" == *' --output'[_-]'dir'* ]] || best_arguments+=(--output_dir outputs/best)
}

# usage: check_paths ARGUMENTS…    the container does not see the rest of this machine, and what it writes elsewhere is lost
check_paths() {
  local name path previous='' output=${OUTPUT_DIR:-}
  local -a paths
  local kit='data/, custom_data/, outputs/ and cache/'
  for name in MODEL_NAME_OR_PATH TRAIN_DATA EVAL_DATA OUTPUT_DIR CACHE_DIR; do
    IFS=: read -r -a paths <<<"${!name:-}"
    for path in "${paths[@]}"; do
      [[ $path != /* || $path == /workspace/* ]] ||
        die "$name is $path, which the container does not see: it sees $kit of $KIT_DIR. Put it there and write, say, custom_data/${path##*/}"
    done
  done
  for name; do
    [[ $previous != --output[_-]dir ]] || output=$name
    [[ $name != --output[_-]dir=* ]] || output=${name#*=}
    previous=$name
  done
  [[ -z $output || ${output#/workspace/} == ?(./)@(data|custom_data|outputs|cache)/?* ]] ||
    die "the output folder $output would be lost with the container, which keeps only $kit. Give, say, outputs/${output##*/}"
}

# usage: check_device WHAT ARGUMENTS…    a model of 568 million parameters on a CPU is rarely what was meant
check_device() {
  local what=$1 word
  shift
  $gpu && return
  is_true "${ALLOW_CPU:-$(env_value ALLOW_CPU)}" && return
  for word; do
    [[ $word != @(-h|--help|--dry-run|--dry_run|--smoke|--allow_cpu*) ]] || return 0
  done
  die "no GPU for the container ($gpu_reason), so training would run on the CPU, which takes days rather than hours.
To try the kit in a few minutes:  ./run_docker_training.sh smoke
To train on the CPU all the same: ALLOW_CPU=true ./run_docker_training.sh $what"
}

main "$@"
