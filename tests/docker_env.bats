#!/usr/bin/env bats
# Whose files the container writes, and what the Docker scripts keep in .env. All with fakes.
# shellcheck disable=SC2154  # output, stderr and status are set by run

bats_require_minimum_version 1.5.0
load helpers/docker_fakes.bash

setup() { make_docker_kit; }

HEAD='# Read by docker-compose. The kit keeps these lines up to date; add your own below.'

# ---- whose files ------------------------------------------------------------------------------------------------------

@test "the container writes as the caller" {
  run --separate-stderr "$WRAPPER" shell
  ((status == 0))
  expect_env "$HEAD" COMPOSE_FILE=docker-compose.yml HOST_UID=1234 HOST_GID=1235
}

@test "under sudo it writes as the person behind it, who gets the new folders too; root alone stays root" {
  FAKE_UID=0 FAKE_GID=0 SUDO_UID=1500 SUDO_GID=1501 run --separate-stderr "$WRAPPER" shell
  ((status == 0))
  expect_env "$HEAD" COMPOSE_FILE=docker-compose.yml HOST_UID=1500 HOST_GID=1501
  for folder in data custom_data outputs cache; do
    grep -qxF "chown of $KIT/$folder" "$LOG"
  done
  grep -qxF "chown <1500:1501>" "$LOG"
  grep -qF "chown of $KIT/.env.part" "$LOG"
  : >"$LOG"
  FAKE_UID=0 FAKE_GID=0 run --separate-stderr "$WRAPPER" shell
  expect_env "$HEAD" COMPOSE_FILE=docker-compose.yml HOST_UID=0 HOST_GID=0
  [[ $(<"$LOG") != *chown* ]]
}

@test "a rootless engine's root is the caller" {
  FAKE_ROOTLESS=1 run --separate-stderr "$WRAPPER" shell
  expect_env "$HEAD" COMPOSE_FILE=docker-compose.yml HOST_UID=0 HOST_GID=0
}

@test "a uid given in the environment counts" {
  HOST_UID=77 HOST_GID=78 run --separate-stderr "$WRAPPER" shell
  expect_env "$HEAD" COMPOSE_FILE=docker-compose.yml HOST_UID=77 HOST_GID=78
}

@test "a folder that the caller may not write into ends it with the cure" {
  mkdir "$KIT/outputs" && chmod 555 "$KIT/outputs"
  local as_caller=()
  if ((EUID == 0)); then
    setpriv=$(PATH=/usr/bin:/bin type -P setpriv) || skip 'root may write everywhere, and there is no setpriv here to be somebody else'
    as_caller=("$setpriv" --reuid 65534 --regid 65534 --clear-groups)
    chmod a+rx "$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR"/* "$BATS_TEST_TMPDIR" "$KIT" && chmod a+rw "$LOG"
    mkdir "$KIT"/{data,custom_data}
    chmod 777 "$KIT"/{data,custom_data}
  fi
  FAKE_UID=1234 run --separate-stderr "${as_caller[@]}" "$WRAPPER" shell
  ((status == 1))
  expect_said "may not write into $KIT/outputs" 'sudo chown -R 1234:1235'
  [[ ! -e $KIT/.env ]]
}

# ---- .env -------------------------------------------------------------------------------------------------------------

@test "with a GPU, Compose typed by hand has it too" {
  docker_gpus 1
  run --separate-stderr "$WRAPPER" single
  ((status == 0))
  expect_env "$HEAD" COMPOSE_FILE=docker-compose.yml:docker-compose.gpu.yml HOST_UID=1234 HOST_GID=1235
  CUDA_VISIBLE_DEVICES='' run --separate-stderr "$WRAPPER" shell
  expect_env "$HEAD" COMPOSE_FILE=docker-compose.yml HOST_UID=1234 HOST_GID=1235
}

@test "lines of the user's own stay, old and double ones go" {
  printf '%s\n' '# mine' 'HF_TOKEN="a b"  # secret' '' 'export HOST_UID=7' 'HOST_GID = 8' 'XHOST_UID=9' 'HOST_UID=10' >"$KIT/.env"
  printf 'LAST=no newline' >>"$KIT/.env"
  run --separate-stderr "$WRAPPER" shell
  ((status == 0))
  expect_env '# mine' 'HF_TOKEN="a b"  # secret' '' XHOST_UID=9 'LAST=no newline' \
    COMPOSE_FILE=docker-compose.yml HOST_UID=1234 HOST_GID=1235
}

@test "a file of the user's own in COMPOSE_FILE stays" {
  docker_gpus 1
  echo 'COMPOSE_FILE="docker-compose.yml:my file.yml"' >"$KIT/.env"
  run --separate-stderr "$WRAPPER" shell
  [[ $(<"$KIT/.env") == *'COMPOSE_FILE="docker-compose.yml:docker-compose.gpu.yml:my file.yml"'* ]]
  rm "$BIN/nvidia-smi"
  run --separate-stderr "$WRAPPER" shell
  [[ $(<"$KIT/.env") == *'COMPOSE_FILE="docker-compose.yml:my file.yml"'* ]]
  echo 'COMPOSE_FILE=docker-compose.gpu.yml:docker-compose.gpu.yml' >"$KIT/.env"
  run --separate-stderr "$WRAPPER" shell
  expect_env COMPOSE_FILE=docker-compose.yml HOST_UID=1234 HOST_GID=1235
}

@test "COMPOSE_FILE of the environment counts, and that is said" {
  COMPOSE_FILE=other.yml run --separate-stderr "$WRAPPER" shell
  ((status == 0))
  expect_said 'COMPOSE_FILE is set in your environment (other.yml)'
}

@test "another CUDA is remembered, so that a later build does not fall back" {
  BASE_IMAGE=nvidia/cuda:12.6.3-devel-ubuntu24.04 TORCH_INDEX_URL=https://example.org/cu126 run --separate-stderr "$WRAPPER" shell
  run --separate-stderr "$WRAPPER" shell
  expect_said 'is up to date'
  expect_env "$HEAD" BASE_IMAGE=nvidia/cuda:12.6.3-devel-ubuntu24.04 TORCH_INDEX_URL=https://example.org/cu126 \
    COMPOSE_FILE=docker-compose.yml HOST_UID=1234 HOST_GID=1235
  BASE_IMAGE=other:1 run --separate-stderr "$WRAPPER" shell
  expect_said 'is older than'
}

@test "the file is replaced whole, keeps its rights and its link, and is left alone when nothing changes" {
  mkdir "$BATS_TEST_TMPDIR/elsewhere"
  echo 'HF_TOKEN=x' >"$BATS_TEST_TMPDIR/elsewhere/env"
  chmod 640 "$BATS_TEST_TMPDIR/elsewhere/env"
  ln -s "$BATS_TEST_TMPDIR/elsewhere/env" "$KIT/.env"
  run --separate-stderr "$WRAPPER" shell
  ((status == 0))
  [[ -L $KIT/.env ]]
  [[ $(stat -c %a "$BATS_TEST_TMPDIR/elsewhere/env") == 640 ]]
  before=$(ls -i "$BATS_TEST_TMPDIR/elsewhere/env")
  run --separate-stderr "$WRAPPER" shell
  [[ $(ls -i "$BATS_TEST_TMPDIR/elsewhere/env") == "$before" ]]
  [[ -z $(compgen -G "$BATS_TEST_TMPDIR/elsewhere/*.part*") ]]
}

@test "a write that fails leaves .env as it was" {
  echo 'HF_TOKEN=x' >"$KIT/.env"
  fake mv 'exit 1'
  run --separate-stderr "$WRAPPER" shell
  ((status == 1))
  expect_said 'cannot write'
  expect_env HF_TOKEN=x
  [[ -z $(compgen -G "$KIT/.env.part*") ]]
}

@test "a folder without a Latin letter has a project name all the same" {
  mv "$KIT" "$BATS_TEST_TMPDIR/проект"
  KIT=$BATS_TEST_TMPDIR/проект
  run --separate-stderr "$KIT/run_docker_training.sh" shell
  ((status == 0))
  expect_env "$HEAD" COMPOSE_PROJECT_NAME=bge-m3 COMPOSE_FILE=docker-compose.yml HOST_UID=1234 HOST_GID=1235
}
