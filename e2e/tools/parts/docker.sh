# shellcheck shell=bash disable=SC2034
PART_WHY="Docker engines for a Swarm of several nodes on this machine (Debian packages; root only)"

DOCKER_PACKAGES=(docker.io iproute2 iptables busybox-static)
DOCKER_PROGRAMS=(dockerd docker containerd runc ip iptables busybox)

part_key() { printf '%s ' "${DOCKER_PACKAGES[@]}"; sha256sum <"$TOOLS/swarm/swarm-cluster" | cut -c 1-16; }

missing_programs() {
  local program
  for program in "${DOCKER_PROGRAMS[@]}"; do
    have "$program" || printf '%s\n' "$program"
  done
}

part_present() { [ -z "$(missing_programs)" ] && [ -x "$OFA_BIN/swarm-cluster" ]; }

# The packages of Debian would start an engine of their own where there is an init system; tests use none of it.
part_install() {
  if [ -n "$(missing_programs)" ]; then
    have apt-get || die "please install with this machine's package manager: $(missing_programs | tr '\n' ' ')"
    [ "$(id -u)" -eq 0 ] || die "please run as root: apt-get install ${DOCKER_PACKAGES[*]}"
    long_step "apt-get update" apt-get -o DPkg::Lock::Timeout=300 update
    long_step "apt-get install ${DOCKER_PACKAGES[*]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends "${DOCKER_PACKAGES[@]}"
  fi
  install -m 755 "$TOOLS/swarm/swarm-cluster" "$OFA_BIN/"
}
