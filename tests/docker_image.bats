#!/usr/bin/env bats
# When the image is built and what is said when it is not, and what Docker's files hold. All with fakes.
# shellcheck disable=SC2154  # output, stderr and status are set by run

bats_require_minimum_version 1.5.0
load helpers/docker_fakes.bash

setup() { make_docker_kit; }

# ---- the image --------------------------------------------------------------------------------------------------------

@test "the image is built when it is missing, and again when what it is made of has changed, not for an edit of the code" {
  run --separate-stderr "$WRAPPER" shell
  expect_said 'building it'
  [[ $output != *'talk of the build'* ]]
  echo 'more' >>"$KIT/m3kit/module.py"
  echo 'learning_rate=1' >>"$KIT/run_flagembedding_training.sh"
  echo x >"$KIT/data/mine.jsonl"
  run --separate-stderr "$WRAPPER" shell
  expect_said 'is up to date'
  expect_log "$BUILD" "$RUN <bash>" "$RUN <bash>"
  for file in Dockerfile requirements.txt constraints.txt example_data/sts/sts.jsonl; do
    echo '# edited' >>"$KIT/$file"
    : >"$LOG"
    run --separate-stderr "$WRAPPER" shell
    expect_said 'is older than'
    expect_log "$BUILD" "$RUN <bash>"
  done
}

@test "an edited script runs in the container without a new image, and cannot be changed from there" {
  for name in scripts m3kit configs ds_stage0.json run_flagembedding_training.sh run_flagembedding_training_single_gpu.sh; do
    grep -qx "      - ./$name:/workspace/$name:ro" "$SOURCE/docker-compose.yml"
  done
}

@test "a failed build ends it, with the reason and its cure" {
  fails() {
    FAKE_BUILD_FAILS=$1 run --separate-stderr "$WRAPPER" smoke
    ((status == 1))
    expect_said "$1" 'could not be built' "${@:2}"
  }
  fails 'something else' 'the reason stands above'
  fails 'write /x: no space left on device' "the disk is full ($DOCKER_ROOT: 500 GB free)" 'docker system df'
  fails 'toomanyrequests: You have reached your pull rate limit' 'docker login, or wait'
  BASE_IMAGE=me/base fails 'pull access denied for me/base, repository does not exist' 'does not hand out the base image me/base'
  fails 'manifest for nvidia/cuda:1 not found: manifest unknown' 'whether BASE_IMAGE is spelt right'
  fails 'proxyconnect tcp: dial tcp: connection refused' 'the network does not answer'
  https_proxy=http://p:1 fails 'Could not connect to p:1' 'the network, or the proxy http://p:1, does not answer'
  fails 'lookup registry.example: no such host' 'the network does not answer'
  fails 'SSLError: certificate verify failed' 'a certificate is not trusted'
  fails 'ERROR: No matching distribution found for torch==2.13.0' 'TORCH_INDEX_URL is right'
}

@test "the proxies of the environment reach the build" {
  https_proxy=http://proxy:3128 run --separate-stderr "$WRAPPER" shell
  expect_log 'docker-compose <build> <--build-arg> <https_proxy=http://proxy:3128> <bge-m3-training>' "$RUN <bash>"
}

# ---- the files of Docker ----------------------------------------------------------------------------------------------

@test "Dockerfile, Compose and the package agree on base and version, and no builder of Docker is asked for more than it can" {
  base=$(sed -n 's/^ARG BASE_IMAGE=//p' "$SOURCE/Dockerfile")
  [[ -n $base ]]
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$SOURCE/pyproject.toml")
  grep -qF "image.version=\"$version\"" "$SOURCE/Dockerfile"
  grep -qF "BASE_IMAGE=\${BASE_IMAGE:-$base}" "$SOURCE/docker-compose.yml"
  run ! grep -nE '^# *syntax=|--mount=|--link|--chmod|<<' "$SOURCE/Dockerfile"
}

@test "everything that a training script sources or runs goes into the image" {
  for name in scripts m3kit example_data requirements.txt constraints.txt configs ds_stage0.json run_flagembedding_training.sh \
    run_flagembedding_training_single_gpu.sh; do
    grep -qx "!$name" "$SOURCE/.dockerignore"
  done
}
