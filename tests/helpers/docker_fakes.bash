# A throw-away copy of the kit with its Docker files, and a machine of fakes. Loaded by the docker files.
# shellcheck shell=bash disable=SC2034,SC2154  # what is set here is used there; output, stderr and status are set by run

SOURCE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)

# shellcheck source=tests/helpers/fakes.bash
source "$SOURCE/tests/helpers/fakes.bash"

# What is run for each build, and before the command in each container.
BUILD='docker-compose <build> <bge-m3-training>'
RUN='docker-compose <run> <--rm> <-T> <bge-m3-training>'

# usage: make_docker_kit    sets KIT, WRAPPER, QUICK, LOG; PATH has the fakes and a few real tools, and nothing else
make_docker_kit() {
  local name
  # Every test runs in a folder whose name needs quoting.
  KIT="$BATS_TEST_TMPDIR/my kit [1] d'été"
  LOG=$BATS_TEST_TMPDIR/log
  STAMP=$BATS_TEST_TMPDIR/image
  BIN=$BATS_TEST_TMPDIR/bin
  DOCKER_ROOT=$BATS_TEST_TMPDIR
  mkdir -p "$KIT/m3kit" "$BIN" "$BATS_TEST_TMPDIR/tools"
  : >"$LOG"
  cp -r "$SOURCE"/{Dockerfile,.dockerignore,docker-compose.yml,docker-compose.gpu.yml,requirements.txt,constraints.txt} \
    "$SOURCE"/*.sh "$SOURCE/scripts" "$KIT"
  echo 'code' >"$KIT/m3kit/module.py"
  mkdir -p "$KIT/example_data/sts" && echo '{}' >"$KIT/example_data/sts/sts.jsonl"
  link_tools bash env cat cp mv rm mkdir mktemp chmod ln ls stat dirname readlink find sort xargs cksum tr awk grep sed \
    sleep tail tee
  for name in docker docker-compose; do
    cp "$SOURCE/tests/helpers/fake_docker.bash" "$BIN/$name"
    chmod +x "$BIN/$name"
  done
  # The caller is uid 1234, whoever runs the tests; what would need real rights is only noted.
  # shellcheck disable=SC2016  # for the fakes to expand
  fake id 'case $1 in -u) echo "${FAKE_UID:-1234}" ;; -g) echo "${FAKE_GID:-1235}" ;; esac'
  # shellcheck disable=SC2016
  fake chown 'printf "chown <%s>\n" "$2" >>"$LOG"; printf "chown of %s\n" "${@: -1}" >>"$LOG"'
  # shellcheck disable=SC2016
  fake df 'printf "Filesystem 1024-blocks Used Available Capacity Mounted on\nx 9 9 %s000000 9%% /\n" "${FAKE_FREE_GB:-500}"'
  PATH=$BIN:$BATS_TEST_TMPDIR/tools
  export LOG STAMP DOCKER_ROOT PATH FAKE_COMPOSE=1.29.2
  # What the machine of the tests has set must not count.
  for name in ${!FAKE_*}; do [[ $name == FAKE_COMPOSE ]] || unset "$name"; done
  unset CUDA_VISIBLE_DEVICES COMPOSE_FILE HOST_UID HOST_GID SUDO_UID SUDO_GID BASE_IMAGE TORCH_INDEX_URL DOCKER_HOST M3KIT_DEBUG \
    TENSORBOARD_PORT http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY
  unset_settings
  WRAPPER=$KIT/run_docker_training.sh
  QUICK=$KIT/docker_quick_start.sh
  cd "$BATS_TEST_TMPDIR" || return
}

# usage: docker_gpus N   a machine with N GPUs, which Docker can hand on
docker_gpus() {
  gpus "$1"
  export FAKE_NVIDIA=1
}

# usage: expect_said WORDS…    each of them is somewhere on stderr
expect_said() {
  local words
  for words; do
    [[ $stderr == *"$words"* ]] || { printf 'not said: %s\nsaid:\n%s\n' "$words" "$stderr" && return 1; }
  done
}

# usage: expect_log LINE…    these commands were run, no others
expect_log() {
  local wanted
  wanted=$(printf '%s\n' "$@")
  (($#)) || wanted=''
  [[ $(<"$LOG") == "$wanted" ]] || { printf 'wanted:\n%s\nrun:\n%s\n' "$wanted" "$(<"$LOG")" && return 1; }
}

# usage: expect_env LINE…    .env has these lines, in this order, and no others
expect_env() {
  local wanted
  wanted=$(printf '%s\n' "$@")
  [[ $(<"$KIT/.env") == "$wanted" ]] || { printf 'wanted:\n%s\n.env:\n%s\n' "$wanted" "$(<"$KIT/.env")" && return 1; }
}
