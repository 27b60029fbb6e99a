# Docker for the two Docker scripts: what is there, and the settings in .env. Sourced after lib.sh.
# A check leaves what is wrong, and the cure, in `problem` and fails; the caller decides whether that ends everything.
# shellcheck shell=bash disable=SC2034  # `problem` and others are the callers'

GPU_FILE=docker-compose.gpu.yml
# What should be free: for the image (PyTorch with CUDA's libraries, and what building needs meanwhile), and in the kit's
# folder for a run (the model, and checkpoints of 7 GB each).
IMAGE_GB=20
RUN_GB=25
CONFIGURE_NVIDIA='sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker'

# usage: find_docker     a client, an engine that answers, the right to ask it; sets docker_version and docker_info
find_docker() {
  local answer podman='podman is not supported: install Docker Engine (docs.docker.com/engine/install), or train without a container: ./run_flagembedding_training_single_gpu.sh'
  problem=''
  if [[ $KIT_DIR == *:* ]]; then
    problem="the folder $KIT_DIR has a ':' in its name, which Docker takes for a separator; rename it"
  elif ! have docker; then
    problem='Docker is not installed. Install Docker Engine (docs.docker.com/engine/install, or: sudo apt install docker.io docker-compose), then run this again'
    ! have podman || problem="there is podman, but no Docker; $podman"
  elif [[ $(docker --version 2>/dev/null) == *podman* ]]; then
    problem="the command docker is podman here; $podman"
  elif ! answer=$(docker version --format '{{.Server.Version}}{{range .Server.Components}} {{.Name}}{{end}}' 2>&1); then
    case ${answer,,} in
      *'permission denied'*connect*)
        problem="you may not use Docker's socket. Type: sudo usermod -aG docker \"\$USER\" && newgrp docker    (members of that group are as good as root)"
        ;;
      *'cannot connect'* | *'failed to connect'* | *'is the docker daemon running'*)
        problem="Docker is installed, but its daemon does not answer${DOCKER_HOST:+ at $DOCKER_HOST}. Type: sudo systemctl start docker    (with Docker Desktop: start it)"
        ;;
      *) problem="Docker does not work: ${answer##*$'\n'}. See what 'docker version' says" ;;
    esac
  elif [[ ${answer,,} == *podman* ]]; then
    problem="podman answers${DOCKER_HOST:+ at DOCKER_HOST=$DOCKER_HOST} and not Docker; $podman"
  fi
  [[ -z $problem ]] || return 1
  answer=${answer##*$'\n'}
  docker_version=${answer%% *}
  docker_info=$(docker info --format '{{.DockerRootDir}}
{{json .Runtimes}}
{{json .SecurityOptions}}' 2>/dev/null) || docker_info=''
}

# usage: find_compose    sets COMPOSE (the command) and compose_version
find_compose() {
  if compose_version=$(docker compose version --short 2>/dev/null); then
    COMPOSE=(docker compose)
  elif have docker-compose && compose_version=$(docker-compose version --short 2>/dev/null); then
    COMPOSE=(docker-compose)
  else
    problem='Docker Compose is not installed. Type: sudo apt install docker-compose-plugin    (or docker-compose-v2 on Ubuntu, docker-compose on Debian)'
    return 1
  fi
  # 1.28 is the first that can ask for a GPU.
  if [[ $compose_version =~ ^v?1\.([0-9]+) ]] && ((BASH_REMATCH[1] < 28)); then
    problem="docker-compose $compose_version is too old: 1.28 or newer is needed. Type: sudo apt install docker-compose-plugin"
    return 1
  fi
}

# usage: find_docker_gpu    sets gpu (true or false), gpu_count, gpu_reason, and gpu_cure where there is one
find_docker_gpu() {
  local listed
  gpu=false gpu_count=0 gpu_cure=''
  if ! have nvidia-smi; then
    gpu_reason='nvidia-smi is not installed'
  elif ! listed=$(nvidia-smi -L 2>&1); then
    gpu_reason="nvidia-smi failed: ${listed%%$'\n'*}"
  else
    gpu_count=$(grep -c '^GPU ' <<<"$listed") || true
    gpu_reason="nvidia-smi lists $gpu_count"
  fi
  ((gpu_count > 0)) || return 0
  if [[ -v CUDA_VISIBLE_DEVICES ]]; then
    gpu_reason="CUDA_VISIBLE_DEVICES='$CUDA_VISIBLE_DEVICES' of the $gpu_count that nvidia-smi lists"
    gpu_count=$(tr , '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -cE '^ *([0-9]|GPU-|MIG-)') || return 0
  fi
  # The runtime is what nvidia-ctk registers; the hook alone is enough for what Compose asks.
  if [[ $docker_info == *'"nvidia"'* ]] || have nvidia-container-runtime-hook; then
    gpu=true
  else
    gpu_reason="$gpu_reason, but Docker has no nvidia runtime"
    gpu_cure="install the NVIDIA Container Toolkit, then type: $CONFIGURE_NVIDIA"
  fi
}

# usage: settle_owner    sets host_uid and host_gid: as whom the container writes into the mounted folders
settle_owner() {
  host_uid=$(id -u) host_gid=$(id -g)
  if [[ $docker_info == *name=rootless* ]]; then
    # In a rootless engine the container's root is the caller, and every other uid is nobody's.
    host_uid=0 host_gid=0
  elif [[ $host_uid == 0 && -n ${SUDO_UID:-} ]]; then
    # sudo is typed to reach the socket; the folder, and what comes to lie in it, is the person's. Who is root without
    # sudo gets root's files, as from any other command.
    host_uid=$SUDO_UID host_gid=${SUDO_GID:-$SUDO_UID}
  fi
  host_uid=${HOST_UID:-$host_uid} host_gid=${HOST_GID:-$host_gid}
}

# usage: make_folders    Docker makes a missing folder itself, but as root's, and the container could not write into it
make_folders() {
  local folder
  for folder in "$KIT_DIR"/{data,custom_data,outputs,cache}; do
    [[ -d $folder ]] || { mkdir -p -- "$folder" && hand_over "$folder"; } ||
      die "cannot make the folder $folder; put the kit where you may write"
    # What root may do says nothing about the person behind sudo.
    [[ $host_uid != "$(id -u)" || -w $folder ]] ||
      die "you may not write into $folder (an earlier container made it as root?). Type: sudo chown -R $host_uid:$host_gid $(quote "$folder")"
  done
}

# usage: hand_over PATH  to the person behind sudo
hand_over() {
  [[ $(id -u) != 0 || $host_uid == 0 ]] || chown -- "$host_uid:$host_gid" "$1"
}

# usage: write_settings  writes into .env what a docker-compose command typed by hand needs too
write_settings() {
  local files=docker-compose.yml name own settings=()
  # A later build must not fall back to another base or CUDA.
  for name in BASE_IMAGE TORCH_INDEX_URL; do
    [[ -z ${!name:-} ]] || settings+=("$name=${!name}")
  done
  # Compose names a project after its folder and takes ASCII letters and digits alone.
  [[ ${KIT_DIR##*/} == *[a-zA-Z0-9]* || -n $(env_value COMPOSE_PROJECT_NAME) ]] || settings+=(COMPOSE_PROJECT_NAME=bge-m3)
  ! $gpu || files+=:$GPU_FILE
  # Files of the user's own stay in the list.
  while IFS= read -r own; do
    [[ $own == @(|docker-compose.yml|"$GPU_FILE") ]] || files+=:$own
  done < <(env_value COMPOSE_FILE | tr : '\n')
  [[ ${COMPOSE_FILE:-$files} == "$files" ]] ||
    say "COMPOSE_FILE is set in your environment ($COMPOSE_FILE); it counts, and not the one in .env ($files)."
  [[ $files != *[[:space:]#]* ]] || files="\"$files\""
  update_env "${settings[@]}" "COMPOSE_FILE=$files" "HOST_UID=$host_uid" "HOST_GID=$host_gid"
}

# usage: env_value NAME  prints what .env says, without quotes
env_value() {
  local value
  [[ -f $KIT_DIR/.env ]] || return 0
  value=$(sed -nE "s/^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*=[[:space:]]*//p" "$KIT_DIR/.env" | tail -n 1)
  value=${value%$'\r'}
  [[ $value != \"*\" && $value != \'*\' ]] || value=${value:1:-1}
  printf '%s\n' "$value"
}

# usage: update_env NAME=VALUE…    at the end of .env; every other line stays as it is
update_env() {
  local file part names old='' new
  file=$(readlink -m -- "$KIT_DIR/.env")
  part=$file.part.$$
  [[ ! -f $file ]] || old=$(<"$file") || die "cannot read $file; see who owns it: ls -l $(quote "$file")"
  printf -v names '%s|' "${@%%=*}"
  new=$(grep -vE "^[[:space:]]*(export[[:space:]]+)?(${names%|})[[:space:]]*=" \
    <<<"${old:-# Read by docker-compose. The kit keeps these lines up to date; add your own below.}") || true
  printf -v new '%s\n' ${new:+"$new"} "$@"
  [[ ${new%$'\n'} != "$old" ]] || return 0
  # Whole or not at all, with the rights it had: .env may hold a token.
  (umask 077 && : >"$part" && { [[ ! -f $file ]] || cp -p -- "$file" "$part"; } && printf '%s' "$new" >"$part") &&
    hand_over "$part" && mv -f -- "$part" "$file" && return
  rm -f -- "$part"
  die "cannot write $file; see who owns it: ls -ld $(quote "$file" "${file%/*}")"
}

# usage: free_gb FOLDER  prints the free space in GB; fails when that cannot be known
free_gb() { df -Pk -- "$1" 2>/dev/null | awk 'NR == 2 { print int($4 / 1000000) }'; }
