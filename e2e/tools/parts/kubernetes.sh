# shellcheck shell=bash disable=SC2034
PART_WHY="a Kubernetes control plane, kwok (nodes without machines), kubectl and helm: the clusters of the tests"

# All of these, or none: parts of two versions of Kubernetes are not run together.
CONTROL_PLANE=(etcd kube-apiserver kube-controller-manager kube-scheduler kubectl)
KUBERNETES_FILES=(control-plane/go.sum control-plane/main.go clients/go.sum kube-cluster kube-cluster-lib.sh)

kubernetes_version() { sed -n 's:.*k8s.io/kubernetes \(v.*\):\1:p' "$TOOLS/kubernetes/control-plane/go.mod" | head -n 1; }

kubernetes_home() { printf '%s/kubernetes-%s' "$OFA_CACHE" "$(kubernetes_version)"; }

part_key() {
  printf 'kubernetes %s %s' "${KUBEBUILDER_ASSETS:-$(kubernetes_version)}" \
    "$(cd "$TOOLS/kubernetes" && cat "${KUBERNETES_FILES[@]}" | sha256sum | cut -c 1-16)"
}

part_present() {
  local program
  for program in "${CONTROL_PLANE[@]}" kwok helm kube-cluster; do
    [ -x "$OFA_BIN/$program" ] || return 1
  done
  [ -s "$(kubernetes_home)/kwok.yaml" ]
}

# own PROGRAM: the user's own, in KUBEBUILDER_ASSETS or on PATH; never what this script has installed.
own() {
  local found
  found=$(PATH=${KUBEBUILDER_ASSETS:+$KUBEBUILDER_ASSETS:}$PATH type -aP "$1" | grep -vxF "$OFA_BIN/$1" | head -n 1)
  [ -n "$found" ] && printf '%s' "$found"
}

own_control_plane() {
  local program
  for program in "${CONTROL_PLANE[@]}"; do
    own "$program" >/dev/null || return 1
  done
}

part_install() {
  local home program
  home=$(kubernetes_home)
  mkdir -p "$home/bin"
  need_command openssl "openssl (Debian: openssl)"
  if own_control_plane; then
    for program in "${CONTROL_PLANE[@]}"; do
      say "    using $(own "$program")"
      ln -sfn "$(own "$program")" "$OFA_BIN/$program"
    done
  else
    build_control_plane "$home"
  fi
  build_clients "$home"
  join_stages "$home"
  install -m 644 "$TOOLS/kubernetes/kube-cluster-lib.sh" "$home/bin/"
  install -m 755 "$TOOLS/kubernetes/kube-cluster" "$home/bin/"
  ln -sfn "$home/bin/kube-cluster" "$OFA_BIN/kube-cluster"
}

need_go() {
  local version
  need_command go "Go 1.26 or newer from https://go.dev/dl, or set KUBEBUILDER_ASSETS to a folder with ${CONTROL_PLANE[*]}"
  version=$(cd / && go env GOVERSION)
  version_at_least 1.21 "${version#go}" || die "$version is too old; install Go 1.26 or newer from https://go.dev/dl"
}

# The release's own builds set the version in this way; without it the API server calls itself v0.0.0.
version_flags() {
  local version package
  version=$(kubernetes_version)
  printf -- '-s -w'
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    printf -- ' -X %s.gitVersion=%s -X %s.gitMajor=1 -X %s.gitMinor=%s' "$package" "$version" "$package" "$package" "$(cut -d . -f 2 <<<"$version")"
    printf -- ' -X %s.gitTreeState=clean -X %s.gitCommit=module-%s -X %s.buildDate=1970-01-01T00:00:00Z' "$package" "$package" "$version" "$package"
  done
}

# One program for all five: they share most of their code, and the name by which it is called picks one.
build_control_plane() {
  local home=$1 program
  need_go
  CGO_ENABLED=0 long_step "building Kubernetes $(kubernetes_version) (once, about ten minutes on two cores)" \
    nice go -C "$TOOLS/kubernetes/control-plane" build -v -trimpath -buildvcs=false -ldflags "$(version_flags)" -o "$home/bin/kube" .
  for program in "${CONTROL_PLANE[@]}"; do
    ln -sfn "$home/bin/kube" "$OFA_BIN/$program"
  done
}

build_clients() {
  local home=$1 program
  for program in kwok helm; do
    if own "$program" >/dev/null; then
      say "    using $(own "$program")"
      ln -sfn "$(own "$program")" "$OFA_BIN/$program"
    else
      need_go
      CGO_ENABLED=0 GOBIN=$home/bin long_step "building $program" \
        nice go -C "$TOOLS/kubernetes/clients" install -v -trimpath -buildvcs=false "$(client_package "$program")"
      ln -sfn "$home/bin/$program" "$OFA_BIN/$program"
    fi
  done
}

client_package() {
  case $1 in
    kwok) printf 'sigs.k8s.io/kwok/cmd/kwok' ;;
    helm) printf 'helm.sh/helm/v3/cmd/helm' ;;
  esac
}

# What kwok does with nodes, pods and volumes: its own fast stages, as they stand in its module.
join_stages() {
  local home=$1 stages stage
  stages=$(go -C "$TOOLS/kubernetes/clients" list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage
  for stage in node/fast/node-initialize node/heartbeat-with-lease/node-heartbeat-with-lease \
    pod/fast/pod-ready pod/fast/pod-complete pod/fast/pod-delete \
    volume/fast/pv-bind volume/fast/pv-delete volume/fast/pvc-provision volume/fast/pvc-delete; do
    printf -- '---\n'
    cat "$stages/$stage.yaml"
  done >"$home/kwok.yaml"
}
