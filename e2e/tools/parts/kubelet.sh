# shellcheck shell=bash disable=SC2034
PART_WHY="kubelet, kube-proxy and DNS for real nodes on this machine (root): the whole-system scenarios of make e2e"

NODE_PACKAGES=(containerd runc containernetworking-plugins iptables conntrack iproute2)
KUBELET_FILES=(node/go.sum node/main.go dns/go.sum dns/main.go addons/coredns.yaml kube-nodes kube-nodes-lib.sh kube-cluster-lib.sh)

kubelet_home() { printf '%s/kubelet' "$OFA_CACHE"; }

part_key() { printf 'kubelet %s' "$(cd "$TOOLS/kubernetes" && cat "${KUBELET_FILES[@]}" | sha256sum | cut -c 1-16)"; }

missing_packages() {
  local package
  for package in "${NODE_PACKAGES[@]}"; do
    dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || printf '%s\n' "$package"
  done
}

part_present() {
  [ -x "$OFA_BIN/kubelet" ] && [ -x "$OFA_BIN/kube-proxy" ] && [ -x "$OFA_BIN/kube-nodes" ] &&
    [ -s "$(kubelet_home)/images/coredns.tar" ] && { ! have dpkg-query || [ -z "$(missing_packages)" ]; }
}

part_install() {
  local home wanted
  home=$(kubelet_home)
  mkdir -p "$home/bin" "$home/images"
  need_command go "Go 1.26 or newer from https://go.dev/dl"
  mapfile -t wanted < <(missing_packages)
  if [ "${#wanted[@]}" -gt 0 ]; then
    have apt-get || die "please install with this machine's package manager: ${wanted[*]}"
    [ "$(id -u)" -eq 0 ] || die "please run as root: apt-get install ${wanted[*]}"
    long_step "installing ${#wanted[@]} Debian packages" apt-get install -y --no-install-recommends "${wanted[@]}"
  fi
  CGO_ENABLED=0 long_step "building kubelet and kube-proxy" \
    nice go -C "$TOOLS/kubernetes/node" build -trimpath -buildvcs=false -ldflags "-s -w" -o "$home/bin/kube-node" .
  CGO_ENABLED=0 long_step "building a DNS server" \
    nice go -C "$TOOLS/kubernetes/dns" build -trimpath -buildvcs=false -ldflags "-s -w" -o "$home/bin/coredns" .
  build_pause "$home"
  "$REPO/images/make-image" "$home/images/pause.tar" localhost/pause:1 "$home/bin/pause"
  "$REPO/images/make-image" "$home/images/coredns.tar" localhost/coredns:1 "$home/bin/coredns"
  cp -r "$TOOLS/kubernetes"/{kube-nodes,kube-nodes-lib.sh,kube-cluster-lib.sh,addons} "$home/bin/"
  local program
  for program in kubelet kube-proxy; do
    ln -sfn kube-node "$home/bin/$program"
    ln -sfn "$home/bin/$program" "$OFA_BIN/$program"
  done
  ln -sfn "$home/bin/kube-nodes" "$OFA_BIN/kube-nodes"
}

# What holds a pod's namespaces: it waits, and reaps.
build_pause() {
  local source
  source=$(go -C "$TOOLS/kubernetes/node" list -m -f '{{.Dir}}' k8s.io/kubernetes)/build/pause/linux/pause.c
  need_command gcc "gcc (Debian: gcc)"
  gcc -Os -static -s -DVERSION=1 -o "$1/bin/pause" "$source"
}
