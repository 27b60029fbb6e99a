# Docker for the two Docker scripts: what is there, and the settings in .env. Sourced after lib.sh.
# A check leaves what is wrong, and the cure, in `problem` and fails; the caller decides whether that ends everything.
# shellcheck shell=bash disable=SC2034,SC2154  # `problem` and others are the callers'; gpu_count is set by count_gpus

MOUNTED=(data custom_data outputs cache)
GPU_FILE=docker-compose.gpu.yml
# What should be free: for the image (CUDA's compiler, PyTorch with its libraries, and what building needs meanwhile), and
# in the kit's folder for a run (the model, and checkpoints of 7 GB each).
IMAGE_GB=30
RUN_GB=25
CONFIGURE_NVIDIA='sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker'

# usage: find_docker     a client, an engine that answers, the right to ask it; sets docker_info
find_docker() {
  local answer
  if ! have docker; then
    problem="Docker is not installed. Install Docker Engine (docs.docker.com/engine/install, or: sudo apt install docker.io docker-compose), then run this again"
    return 1
  fi
  if ! answer=$(docker version --format '{{.Server.Version}}' 2>&1); then
    case ${answer,,} in
      *'permission denied'*connect*)
        problem="you may not use Docker's socket. Type: sudo usermod -aG docker \"\$USER\" && newgrp docker    (members of that group are as good as root)"
        ;;
      *'cannot connect'* | *'failed to connect'* | *'is the docker daemon running'*)
        problem="Docker is installed, but its daemon does not answer${DOCKER_HOST:+ at $DOCKER_HOST}. Type: sudo systemctl start docker    (with Docker Desktop: start it)"
        ;;
      *) problem="Docker does not work: ${answer##*$'\n'}. See what 'docker version' says" ;;
    esac
    return 1
  fi
  docker_version=$answer
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
  gpu=false gpu_cure=''
  count_gpus
  ((gpu_count > 0)) || return 0
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
  local name folder
  for name in "${MOUNTED[@]}"; do
    folder=$KIT_DIR/$name
    if [[ ! -d $folder ]]; then
      mkdir -p -- "$folder" || die "cannot make the folder $folder; put the kit where you may write"
      hand_over "$folder"
    fi
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
  local files name settings=()
  files=$(compose_files)
  settings=("COMPOSE_FILE=$files" "HOST_UID=$host_uid" "HOST_GID=$host_gid")
  # A later build must not fall back to another CUDA.
  for name in BASE_IMAGE TORCH_INDEX_URL; do
    [[ -z ${!name:-} ]] || settings+=("$name=${!name}")
  done
  # Compose names a project after its folder and takes ASCII letters and digits alone.
  [[ ${KIT_DIR##*/} == *[a-zA-Z0-9]* || -n $(env_value COMPOSE_PROJECT_NAME) ]] || settings+=(COMPOSE_PROJECT_NAME=bge-m3)
  update_env "${settings[@]}"
  [[ ${COMPOSE_FILE:-$files} == "$files" ]] ||
    say "COMPOSE_FILE is set in your environment ($COMPOSE_FILE); it counts, and not the one in .env ($files)."
}

# usage: compose_files   prints the list for COMPOSE_FILE: the files already in .env stay, the one for the GPU comes and goes
compose_files() {
  local files
  files=:$(env_value COMPOSE_FILE):
  while [[ $files == *":$GPU_FILE:"* ]]; do
    files=${files/":$GPU_FILE:"/:}
  done
  [[ $files == *:docker-compose.yml:* ]] || files=:docker-compose.yml$files
  if $gpu; then files=${files/:docker-compose.yml:/":docker-compose.yml:$GPU_FILE:"}; fi
  files=${files#:} && files=${files%"${files##*[!:]}"}
  [[ $files != *[[:space:]#]* ]] || files="\"$files\""
  printf '%s\n' "$files"
}

# usage: env_value NAME  prints what .env says, without quotes
env_value() {
  local line value=''
  [[ -f $KIT_DIR/.env ]] || return 0
  while IFS= read -r line || [[ -n $line ]]; do
    [[ ! $line =~ ^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*=[[:space:]]*(.*)$ ]] || value=${BASH_REMATCH[2]}
  done <"$KIT_DIR/.env"
  value=${value%$'\r'}
  [[ $value != \"*\" && $value != \'*\' ]] || value=${value:1:-1}
  printf '%s\n' "$value"
}

# usage: update_env NAME=VALUE…    in .env; every other line stays as it is
update_env() {
  local file line name setting old='' new=''
  local -A wanted=() written=()
  file=$(readlink -m -- "$KIT_DIR/.env")
  for setting; do
    wanted[${setting%%=*}]=$setting
  done
  [[ ! -f $file ]] || { old=$(<"$file") && old+=$'\n'; } || die "cannot read $file; see who owns it: ls -l $(quote "$file")"
  while IFS= read -r line; do
    name=''
    [[ ! $line =~ ^[[:space:]]*(export[[:space:]]+)?([A-Za-z_][A-Za-z0-9_]*)[[:space:]]*= ]] || name=${BASH_REMATCH[2]}
    if [[ -z $name || ! -v wanted[$name] ]]; then
      new+=$line$'\n'
    elif [[ ! -v written[$name] ]]; then
      new+=${wanted[$name]}$'\n'
      written[$name]=1
    fi
  done <<<"${old%$'\n'}"
  [[ -n $old ]] || new=$'# Read by docker-compose. The kit keeps these lines up to date; add your own below.\n'
  for setting; do
    [[ -v written[${setting%%=*}] ]] || new+=$setting$'\n'
  done
  [[ $new != "$old" ]] || return 0
  replace_file "$file" "$new"
}

# usage: replace_file FILE TEXT    whole or not at all, with the rights it had: .env may hold a token
replace_file() {
  local part=$1.part.$$
  if [[ -f $1 ]]; then
    cp -p -- "$1" "$part"
  else
    (umask 077 && : >"$part")
    hand_over "$part"
  fi && printf '%s' "$2" >"$part" && mv -f -- "$part" "$1" && return
  rm -f -- "$part"
  die "cannot write $1; see who owns it: ls -ld $(quote "$1" "${1%/*}")"
}

# usage: free_gb FOLDER  prints the free space in GB, or nothing
free_gb() {
  local blocks
  blocks=$(df -Pk -- "$1" 2>/dev/null | awk 'NR == 2 { print int($4 / 1000000) }') && printf '%s\n' "$blocks"
}
