# shellcheck shell=bash disable=SC2034
PART_WHY="C compiler and headers that librdkafka is built with (Debian packages)"

DEBIAN_PACKAGES=(gcc g++ make pkg-config libssl-dev zlib1g-dev)

part_key() { printf '%s ' "${DEBIAN_PACKAGES[@]}"; }

missing_packages() {
  local package
  for package in "${DEBIAN_PACKAGES[@]}"; do
    dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || printf '%s\n' "$package"
  done
}

# Elsewhere than on Debian the names of packages are unknown: ask for what the compiler needs.
missing_capabilities() {
  local program header
  for program in gcc g++ make pkg-config; do
    have "$program" || printf '%s\n' "$program"
  done
  for header in openssl zlib; do
    pkg-config --exists "$header" 2>/dev/null || printf '%s\n' "the development files of $header"
  done
}

missing() {
  if have dpkg-query; then missing_packages; else missing_capabilities; fi
}

part_present() { [ -z "$(missing)" ]; }

part_install() {
  local wanted sudo=()
  mapfile -t wanted < <(missing)
  [ "${#wanted[@]}" -gt 0 ] || return 0
  have apt-get || die "please install with this machine's package manager: $(printf '%s; ' "${wanted[@]}")"
  if [ "$(id -u)" -ne 0 ]; then
    have sudo || die "please run as root: apt-get install ${wanted[*]}"
    sudo=(sudo)
    say "    sudo may ask for your password, in order to run: apt-get install ${wanted[*]}"
    sudo -v
  fi
  long_step "apt-get update" "${sudo[@]}" apt-get -o DPkg::Lock::Timeout=300 update
  long_step "apt-get install ${wanted[*]}" "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends "${wanted[@]}"
}
