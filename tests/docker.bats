#!/usr/bin/env bats
# What the Docker wrapper checks, says and runs. All with fakes.
# shellcheck disable=SC2154  # output, stderr and status are set by run

bats_require_minimum_version 1.5.0
load helpers/docker_fakes.bash

setup() { make_docker_kit; }

# ---- what must be there -----------------------------------------------------------------------------------------------

@test "help needs no Docker, and is the head of the file" {
  rm "$BIN"/docker*
  for script in "$WRAPPER" "$QUICK"; do
    run --separate-stderr "$script" --help
    ((status == 0))
    [[ $output == *"Usage: ${script##*/}"* && $output != *'set -E'* ]]
    while IFS= read -r line; do
      [[ $line == '#!'* || $output == *"${line#'# '}"* || $line == '#' ]]
    done < <(while IFS= read -r line && [[ $line == '#'* ]]; do printf '%s\n' "$line"; done <"$script")
  done
}

@test "each thing that is missing ends it with its cure, and nothing is changed" {
  mv "$BIN/docker" "$BIN/none"
  run --separate-stderr "$WRAPPER" smoke
  ((status == 1))
  expect_said 'Docker is not installed' 'apt install docker.io'
  mv "$BIN/none" "$BIN/docker"

  FAKE_DAEMON=down run --separate-stderr "$WRAPPER" smoke
  ((status == 1))
  expect_said 'daemon does not answer' 'sudo systemctl start docker'

  FAKE_DAEMON=denied run --separate-stderr "$WRAPPER" smoke
  ((status == 1))
  # shellcheck disable=SC2016  # as it is printed
  expect_said "may not use Docker's socket" 'sudo usermod -aG docker "$USER"'

  FAKE_DAEMON=odd run --separate-stderr "$WRAPPER" smoke
  ((status == 1))
  expect_said 'Docker does not work: the engine is on fire' 'docker version'

  FAKE_COMPOSE='' run --separate-stderr "$WRAPPER" smoke
  ((status == 1))
  expect_said 'Docker Compose is not installed' 'apt install docker-compose-plugin'

  FAKE_COMPOSE=1.25.0 run --separate-stderr "$WRAPPER" smoke
  ((status == 1))
  expect_said 'docker-compose 1.25.0 is too old' '1.28'

  expect_log
  [[ ! -e $KIT/.env && ! -e $KIT/outputs ]]
}

@test "podman, by any of its names, is refused in one sentence that names two ways out" {
  refuses() {
    for command in "$WRAPPER smoke" "$QUICK --check"; do
      # The folder's name has spaces.
      run --separate-stderr "${command% *}" "${command##* }"
      ((status == 1))
      expect_said "$1" 'podman is not supported: install Docker Engine' 'run_flagembedding_training_single_gpu.sh'
    done
  }
  FAKE_DAEMON=shim refuses 'the command docker is podman here'
  FAKE_DAEMON=podman DOCKER_HOST=unix:///run/user/1000/podman/podman.sock \
    refuses 'podman answers at DOCKER_HOST=unix:///run/user/1000/podman/podman.sock'
  FAKE_DAEMON=podman refuses 'podman answers and not Docker'
  mv "$BIN/docker" "$BIN/podman"
  refuses 'there is podman, but no Docker'
  expect_log
  [[ ! -e $KIT/.env && ! -e $KIT/outputs ]]
}

@test "the plugin is preferred where both are there" {
  FAKE_PLUGIN=2.40.3 run --separate-stderr "$WRAPPER" smoke
  ((status == 0))
  expect_said 'Compose 2.40.3'
  expect_log 'docker compose <build> <bge-m3-training>' \
    'docker compose <run> <--rm> <-T> <bge-m3-training> <./run_flagembedding_training_single_gpu.sh> <--smoke>'
}

@test "what is not there is said, with what is" {
  run --separate-stderr "$WRAPPER" dance
  ((status == 1))
  expect_said "there is no 'dance'" 'single multi smoke evaluate shell tensorboard, -- COMMAND'
  run --separate-stderr "$QUICK" --dance
  ((status == 1))
  expect_said "there is no option '--dance'"
  for what in tensorboard shell; do
    run --separate-stderr "$WRAPPER" "$what" --port 1
    ((status == 1))
    expect_said "$what takes no arguments" './run_docker_training.sh -- COMMAND'
  done
  run --separate-stderr "$WRAPPER" --
  ((status == 1))
  expect_said 'the command is missing'
  expect_log
}

# ---- what is run ------------------------------------------------------------------------------------------------------

@test "single, multi and smoke run the same scripts in the container, with the arguments as they are" {
  docker_gpus 2
  run --separate-stderr "$WRAPPER" single --train_data 'custom_data/a b' --run_name "d'été [1] \$HOME"
  ((status == 0))
  [[ $output == 'out of the container' ]]
  expect_log "$BUILD" "$RUN <nvidia-smi> <-L>" \
    "$RUN <./run_flagembedding_training_single_gpu.sh> <--train_data> <custom_data/a b> <--run_name> <d'été [1] \$HOME>"
  : >"$LOG"
  run --separate-stderr "$WRAPPER" multi --dry-run
  ((status == 0))
  expect_log "$RUN <nvidia-smi> <-L>" "$RUN <./run_flagembedding_training.sh> <--dry-run>"
  : >"$LOG"
  run --separate-stderr "$WRAPPER" smoke --max_steps 2
  ((status == 0))
  expect_log "$RUN <nvidia-smi> <-L>" "$RUN <./run_flagembedding_training_single_gpu.sh> <--smoke> <--max_steps> <2>"
}

@test "shell is a shell, -- is any command; evaluate is the kit's; tensorboard has its port" {
  run --separate-stderr "$WRAPPER" shell
  ((status == 0))
  run --separate-stderr "$WRAPPER" -- ls -la 'a b'
  ((status == 0))
  run --separate-stderr "$WRAPPER" evaluate --models a=x b=y
  ((status == 0))
  run --separate-stderr "$WRAPPER" tensorboard
  ((status == 0))
  expect_said 'http://localhost:6006'
  expect_log "$BUILD" "$RUN <bash>" "$RUN <ls> <-la> <a b>" "$RUN <python> <-m> <m3kit> <evaluate> <--models> <a=x> <b=y>" \
    'docker-compose <run> <--rm> <--service-ports> <-T> <tensorboard>'
}

# bats test_tags=slow
@test "a signal stops the container as docker stop does, whatever the client does with it" {
  for client in waits dies; do
    for signal in TERM INT HUP; do
      rm -f "$LOG".*
      : >"$LOG"
      # Bash starts what is in the background with INT ignored, and what is ignored cannot be trapped.
      FAKE_RUNS=1 FAKE_CLIENT=$client env --default-signal=INT "$WRAPPER" -- train >"$BATS_TEST_TMPDIR/said" 2>&1 &
      until grep -q runs "$LOG" || ! kill -0 $!; do sleep 0.1; done
      kill -s "$signal" $!
      status=0
      wait $! || status=$?
      case $signal in TERM) wanted=143 ;; INT) wanted=130 ;; HUP) wanted=129 ;; esac
      ((status == wanted)) || { echo "$client $signal: $status" && return 1; }
      grep -q "docker kill $(<"$LOG.name")" "$BATS_TEST_TMPDIR/said"
      grep -q "docker <stop> <$(<"$LOG.name")>" "$LOG"
      grep -q 'docker <rm> <--force>' "$LOG"
      if [[ $client == dies ]]; then
        grep -q 'docker <logs> <--follow>' "$LOG"
      else
        grep -q 'last words' "$BATS_TEST_TMPDIR/said"
      fi
    done
  done
}

@test "the exit code is that of the command in the container" {
  FAKE_STATUS=37 run --separate-stderr "$WRAPPER" smoke
  ((status == 37))
}

@test "a terminal is asked for only where there is one" {
  script=$(PATH=/usr/bin:/bin type -P script) || skip 'no script(1) here to make a terminal'
  printf '#!/usr/bin/env bash\nexec %q shell\n' "$WRAPPER" >"$BIN/call"
  chmod +x "$BIN/call"
  SHELL=/bin/sh "$script" -qec "$BIN/call" /dev/null </dev/null >/dev/null
  expect_log "$BUILD" 'docker-compose <run> <--rm> <bge-m3-training> <bash>'
}

@test "the mounted folders are there before the container is" {
  fake docker-compose "[[ \$1 != run ]] || ls -d '${KIT//\'/\'\\\'\'}'/{data,custom_data,outputs,cache} >>\"\$LOG\"
[[ \$1 != version ]] || echo 1.29.2"
  run --separate-stderr "$WRAPPER" smoke
  ((status == 0))
  expect_log "$KIT"/{cache,custom_data,data,outputs}
}

# ---- no GPU -----------------------------------------------------------------------------------------------------------

@test "training without a GPU stops before anything is built, with two ways to go on" {
  for what in single multi; do
    run --separate-stderr "$WRAPPER" "$what" --learning_rate 1e-6
    ((status == 1))
    expect_said 'nvidia-smi is not installed' './run_docker_training.sh smoke' "ALLOW_CPU=true ./run_docker_training.sh $what"
  done
  expect_log
  [[ ! -e $KIT/.env ]]
}

@test "what trains nothing, or is to train on the CPU, does not stop" {
  ALLOW_CPU=true run --separate-stderr "$WRAPPER" single
  ((status == 0))
  for argument in --help --dry-run --smoke --allow_cpu; do
    run --separate-stderr "$WRAPPER" multi "$argument"
    ((status == 0))
  done
  echo 'ALLOW_CPU=yes' >>"$KIT/.env"
  run --separate-stderr "$WRAPPER" single
  ((status == 0))
  ALLOW_CPU=false run --separate-stderr "$WRAPPER" single
  ((status == 1))
}

@test "a GPU that Docker cannot hand on is no GPU, and the cure is named" {
  docker_gpus 1
  unset FAKE_NVIDIA
  run --separate-stderr "$WRAPPER" single
  ((status == 1))
  expect_said 'Docker has no nvidia runtime' 'nvidia-ctk runtime configure'
  run --separate-stderr "$WRAPPER" smoke
  ((status == 0))
  [[ $(<"$KIT/.env") != *gpu* ]]
}

# ---- paths that the container does not have ----------------------------------------------------------------------------

@test "paths of this machine are refused before they are not found, or their results lost" {
  TRAIN_DATA=custom_data/a:/home/me/b run --separate-stderr "$WRAPPER" smoke
  ((status == 1))
  expect_said 'does not see /home/me/b' 'custom_data/b'
  OUTPUT_DIR=/mnt/x run --separate-stderr "$WRAPPER" smoke
  ((status == 1))
  run --separate-stderr "$WRAPPER" single --train_data custom_data/a --eval_data=/home/me/e
  ((status == 1))
  expect_said 'does not see /home/me/e'
  for arguments in '--output_dir here' '--output_dir=/tmp/here' '--output-dir ../here'; do
    # shellcheck disable=SC2086  # two words
    run --separate-stderr "$WRAPPER" smoke $arguments
    ((status == 1))
    expect_said 'would be lost with the container' 'outputs/here'
  done
  expect_log
  for good in outputs/x ./custom_data/x /workspace/outputs/x; do
    OUTPUT_DIR=$good TRAIN_DATA=/workspace/data/x run --separate-stderr "$WRAPPER" smoke --output_dir "$good"
    ((status == 0))
  done
}

# ---- the menu ---------------------------------------------------------------------------------------------------------

@test "Enter takes what fits the machine, and the menu marks it" {
  run --separate-stderr "$WRAPPER" <<<''
  ((status == 0))
  [[ $stderr =~ 'smoke '[^$'\n']*'<- Enter (no GPU' ]]
  docker_gpus 1
  run --separate-stderr "$WRAPPER" <<<''
  [[ $stderr =~ 'single '[^$'\n']*'<- Enter (one GPU)' ]]
  docker_gpus 3
  run --separate-stderr "$WRAPPER" <<<''
  [[ $stderr =~ 'multi '[^$'\n']*'<- Enter (3 GPUs)' ]]
  mkdir -p "$KIT/custom_data/retrieval" && : >"$KIT/custom_data/retrieval/train.jsonl"
  run --separate-stderr "$WRAPPER" <<<''
  [[ $stderr =~ 'best '[^$'\n']*'<- Enter (your data in custom_data/)' ]]
  expect_log "$BUILD" "$RUN <./run_flagembedding_training_single_gpu.sh> <--smoke>" \
    "$RUN <nvidia-smi> <-L>" "$RUN <./run_flagembedding_training_single_gpu.sh>" \
    "$RUN <nvidia-smi> <-L>" "$RUN <./run_flagembedding_training.sh>" \
    "$RUN <nvidia-smi> <-L>" \
    "$RUN <./run_flagembedding_training.sh> <--recipe> <best> <--train_data> <custom_data> <--output_dir> <outputs/best>"
}

@test "best takes the data that is named, or custom_data, and says so when that is empty" {
  docker_gpus 1
  run --separate-stderr "$WRAPPER" best
  ((status == 1))
  expect_said 'custom_data/ is empty' '--train_data'
  run --separate-stderr "$WRAPPER" best --train_data custom_data/mine --output_dir outputs/mine
  ((status == 0))
  expect_log "$BUILD" "$RUN <nvidia-smi> <-L>" \
    "$RUN <./run_flagembedding_training_single_gpu.sh> <--recipe> <best> <--train_data> <custom_data/mine> <--output_dir> <outputs/mine>"
}

@test "a number or a name chooses; nonsense is asked again" {
  run --separate-stderr "$WRAPPER" <<<$'9\n[1]\nnonsense\n 6 '
  ((status == 0))
  expect_said "There is no '9'" "There is no 'nonsense'"
  run --separate-stderr "$WRAPPER" <<<'tensorboard'
  expect_log "$BUILD" "$RUN <bash>" 'docker-compose <run> <--rm> <--service-ports> <-T> <tensorboard>'
}

@test "quit and the end of the input end it politely, without a change" {
  for input in 8 q quit; do
    run --separate-stderr "$WRAPPER" <<<"$input"
    ((status == 0))
  done
  run --separate-stderr "$WRAPPER" </dev/null
  ((status == 0))
  expect_said 'Nothing chosen, nothing done'
  expect_log
  [[ ! -e $KIT/.env ]]
}
