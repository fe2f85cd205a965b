# shellcheck shell=bash disable=SC2034
PART_WHY="a browser without a window, in which the page is tested (Debian package)"

browser() { have chromium || have chromium-browser || have google-chrome; }

part_key() { printf 'chromium'; }

part_present() { browser; }

part_install() {
  local sudo=()
  browser && return 0
  have apt-get || die "please install Chromium with this machine's package manager"
  if [ "$(id -u)" -ne 0 ]; then
    have sudo || die "please run as root: apt-get install chromium"
    sudo=(sudo)
  fi
  long_step "apt-get update" "${sudo[@]}" apt-get -o DPkg::Lock::Timeout=300 update
  long_step "apt-get install chromium" "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends chromium
}
