# The image and the container of run_docker_training.sh. Sourced after docker.sh, whose settings it needs.
# shellcheck shell=bash disable=SC2154  # set by docker.sh

# The image, and the service of docker-compose.yml.
NAME=bge-m3-training

# usage: ensure_image    builds it when there is none, or when what it is made of has changed; the code is mounted, not built in
ensure_image() {
  local stamp built name log arguments=() status=0
  stamp=$({ env_value BASE_IMAGE && env_value TORCH_INDEX_URL && cat Dockerfile requirements.txt constraints.txt example_data/*/*.*; } | cksum)
  stamp=${stamp// /-}
  if ! built=$(docker image inspect --format '{{index .Config.Labels "m3kit.stamp"}}' "$NAME" 2>/dev/null); then
    say "Image: there is no $NAME yet; building it. This is done once: about 3 GB to download, up to $IMAGE_GB GB on disk, 5 to 30 minutes."
  elif [[ $built != "$stamp" ]]; then
    say "Image: $NAME is older than the Dockerfile, the requirements or example_data; building it again, as far as they changed."
  else
    say "Image: $NAME is up to date."
    return
  fi
  # Docker's client does not hand on the proxies of the environment by itself.
  for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    [[ -z ${!name:-} ]] || arguments+=(--build-arg "$name=${!name}")
  done
  arguments+=(--build-arg "KIT_STAMP=$stamp")
  ! name=$(git rev-parse HEAD 2>/dev/null) || arguments+=(--build-arg "REVISION=$name")
  log=$(mktemp)
  "${COMPOSE[@]}" build "${arguments[@]}" "$NAME" 2>&1 | tee -- "$log" >&2 || status=$?
  ((status == 0)) || problem=$(why_not_built "$(tail -n 200 -- "$log")")
  rm -f -- "$log"
  ((status == 0)) ||
    die "the image could not be built: $problem. Then run this again; finished steps are kept"
}

# usage: why_not_built LOG    prints what is wrong and the cure, as far as the messages of engine, apt and pip tell
why_not_built() {
  local log=$1 base root=${docker_info%%$'\n'*} proxy=${https_proxy:-${HTTPS_PROXY:-${http_proxy:-${HTTP_PROXY:-}}}}
  base=$(env_value BASE_IMAGE)
  base=${base:-$(sed -n 's/^ARG BASE_IMAGE=//p' Dockerfile)}
  if said 'no space left on device|disk quota exceeded|enough free space'; then
    printf '%s' "the disk is full ($root: $(free_gb "$root" || printf '?') GB free). See what Docker holds: docker system df; free what no container uses: docker system prune"
  elif said toomanyrequests; then
    printf '%s' 'the registry hands out no more images to this address for now. Type: docker login, or wait some hours'
  elif said "access denied|403 forbidden|authorization failed|unauthorized|manifest (unknown|for .*not found)|invalid reference format|${base//[^a-zA-Z0-9]/.}: not found"; then
    printf '%s' "the registry does not hand out the base image $base. See whether BASE_IMAGE is spelt right; for a private one type: docker login"
  elif said 'certificate verify failed|unknown authority|unable to get local issuer'; then
    printf '%s' "a certificate is not trusted, as behind a proxy that opens TLS. Add its certificate to a base image of yours and give that as BASE_IMAGE; for pulling, to the engine's machine"
  elif said 'proxyconnect|connect to proxy|no such host|temporary failure|could not (resolve|connect)|connection refused|unreachable|no route to host|new connection|timed out|(i/o|handshake|client\.)\s*timeout|deadline exceeded'; then
    printf '%s' "the network${proxy:+, or the proxy $proxy,} does not answer. Set http_proxy and https_proxy right, or unset them; for pulling, the engine has a proxy of its own (docs.docker.com/engine/daemon/proxy)"
  elif said 'no matching distribution|could not find a version'; then
    printf '%s' 'pip found no fitting package (its message is above). See whether the base image has Python 3.11 to 3.14, and TORCH_INDEX_URL is right'
  else
    printf '%s' 'the reason stands above'
  fi
}

# usage: said REGEX      true when it is in log, the variable of the caller
said() { grep -qiE -- "$1" <<<"$log"; }

# usage: try_gpu         a runtime in name only shows here and not in the middle of a run
try_gpu() {
  local log cure
  $gpu || return 0
  if log=$("${COMPOSE[@]}" run --rm -T "$NAME" nvidia-smi -L </dev/null 2>&1); then
    say "In the container: $(grep '^GPU ' <<<"$log" || tail -n 1 <<<"$log")"
    return
  fi
  if said 'unsatisfied condition|update your driver'; then
    cure='the driver is too old for the CUDA of this image. Update it (580 or newer), or build for an older CUDA: see the head of Dockerfile'
  elif said 'could not select device driver|(unknown|invalid) runtime name'; then
    cure="Docker has no nvidia runtime. Install the NVIDIA Container Toolkit, then type: $CONFIGURE_NVIDIA"
  elif said 'driver/library version mismatch|driver not loaded'; then
    cure='the driver was updated or is not loaded. Restart this machine'
  else
    cure="see whether nvidia-smi works outside, then type: $CONFIGURE_NVIDIA"
  fi
  die "the container cannot use the GPU: $cure
What was said: $(grep -iE 'nvidia|nvml|error|driver' <<<"$log" | tail -n 1)
To go on without it: CUDA_VISIBLE_DEVICES= $(quote "$0" "${PROGRAM_ARGUMENTS[@]}")"
}

# usage: run_container SERVICE COMMAND…    runs it in the container, which is removed after it; returns its status
#
# Compose is not to be relied on with signals: its plugin ends at Ctrl-C and leaves the container running, or does not
# hear TERM at all. So it is waited for, and a signal stops the container as `docker stop` does: with a checkpoint.
run_container() {
  local service=$1 child caught='' status=0
  local -a run=("${COMPOSE[@]}" run --rm)
  shift
  printf -v container 'bge-m3-%(%Y%m%d-%H%M%S)T-%s' -1 $$
  run+=(--name "$container" -e "M3KIT_WRAPPER=./run_docker_training.sh")
  # Only `up` opens the ports by itself, and it leaves its container behind.
  [[ $service != tensorboard ]] || run+=(--service-ports)
  # With a pipe on either side a terminal would change what goes through it, and docker-compose 1.29 would refuse.
  [[ -t 0 && -t 1 ]] || run+=(-T)
  run+=("$service" "$@")
  say "$(quote "${run[@]}")"
  trap 'stop_container 143' TERM
  trap 'stop_container 130' INT
  trap 'stop_container 129' HUP
  # In the background, for Bash heeds a trap only while it waits; not in a process group of its own, which could not read
  # from the terminal.
  "${run[@]}" <&0 &
  child=$!
  wait "$child" || status=$?
  # A trap cuts wait short while the command is still ending.
  while kill -0 "$child" 2>/dev/null; do
    status=0
    wait "$child" || status=$?
  done
  wait
  trap - TERM INT HUP
  # What a client that is gone would have removed.
  [[ -z $caught ]] || docker rm --force "$container" >/dev/null 2>&1 || true
  return "${caught:-$status}"
}

# usage: stop_container STATUS    for a trap of run_container; only the first signal counts
stop_container() {
  local since
  caught=$1
  trap '' TERM INT HUP
  printf -v since '%(%s)T' -1
  say "$PROGRAM: stopping; training finishes its step and saves a checkpoint first. At once, and without: docker kill $container"
  # A newer client has gone by now, and with it what the container says.
  sleep 1
  if ! kill -0 "$child" 2>/dev/null && docker container inspect "$container" >/dev/null 2>&1; then
    docker logs --follow --since "$since" "$container" &
  fi
  # It may be asked for and not be there yet.
  until docker stop "$container" >/dev/null 2>&1 || ! kill -0 "$child" 2>/dev/null; do
    sleep 1
  done
}
