#!/usr/bin/env bats
# What the quick start checks, says and runs. All with fakes.
# shellcheck disable=SC2154  # output, stderr and status are set by run

bats_require_minimum_version 1.5.0
load helpers/docker_fakes.bash

setup() { make_docker_kit; }

@test "the quick start checks, builds, tries, and says what to type next" {
  run --separate-stderr "$QUICK"
  ((status == 0))
  expect_said 'ok  Docker 27.1.0' 'ok  Compose 1.29.2' 'note  no GPU for the container' 'the image needs 20 GB'
  [[ $output == *'./run_docker_training.sh best'* && $output == *'docker-compose run --rm bge-m3-training bash'* ]]
  expect_log "$BUILD" "$RUN <./run_flagembedding_training_single_gpu.sh> <--smoke>"
  expect_env '# Read by docker-compose. The kit keeps these lines up to date; add your own below.' \
    COMPOSE_FILE=docker-compose.yml HOST_UID=1234 HOST_GID=1235
}

@test "the quick start tries the GPU in the container first" {
  docker_gpus 1
  run --separate-stderr "$QUICK"
  ((status == 0))
  expect_said 'GPU 0: seen from inside'
  expect_log "$BUILD" "$RUN <nvidia-smi> <-L>" "$RUN <./run_flagembedding_training_single_gpu.sh> <--smoke>"
}

@test "a GPU that is there in name only ends it before training, with the cure and the way without it" {
  docker_gpus 2
  fails() {
    FAKE_GPU_FAILS=$1 run --separate-stderr "$WRAPPER" multi --seed 7
    ((status == 1))
    expect_said "$1" "$2" 'CUDA_VISIBLE_DEVICES= ' 'multi --seed 7'
    FAKE_GPU_FAILS=$1 run --separate-stderr "$QUICK"
    ((status == 1))
    expect_said "$2"
  }
  fails 'could not select device driver "nvidia" with capabilities: [[gpu]]' 'Docker has no nvidia runtime'
  fails 'nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0, please update your driver' 'Update it (580 or newer)'
  fails 'Failed to initialize NVML: Driver/library version mismatch' 'Restart this machine'
  fails 'nvidia says something else' 'nvidia-ctk runtime configure'
  run --separate-stderr "$WRAPPER" multi
  ((status == 0))
  expect_said 'GPU 0: seen from inside'
}

@test "with --check it only looks" {
  FAKE_FREE_GB=7 run --separate-stderr "$QUICK" --check
  ((status == 0))
  expect_said "only 7 GB free at $DOCKER_ROOT; the image needs 20 GB" "only 7 GB free at $KIT; a training run needs 25 GB" \
    'Next: ./docker_quick_start.sh'
  FAKE_COMPOSE='' FAKE_DAEMON=down run --separate-stderr "$QUICK" --check
  ((status == 1))
  expect_said 'stop  Docker is installed' 'stop  Docker Compose is not installed' '2 of these'
  expect_log
  [[ ! -e $KIT/.env && ! -e $KIT/outputs ]]
}

@test "a smoke test that fails, or is killed, is no success; one that is stopped has not failed" {
  for code in 3 137; do
    FAKE_STATUS=$code run --separate-stderr "$QUICK"
    ((status == code))
    expect_said 'the smoke test failed'
    [[ $output != *'All works'* ]]
  done
  FAKE_STATUS=143 run --separate-stderr "$QUICK"
  ((status == 143))
  [[ $stderr != *'the smoke test failed'* && $output != *'All works'* ]]
}
