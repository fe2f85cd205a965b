# shellcheck shell=bash disable=SC2034
PART_WHY="nats-server: the shards' nodes in the demo and in the tests"

# Earlier ones have published advisories.
NATS_OLDEST=2.12.7

part_key() { printf 'nats-server %s' "$(sha256sum <"$TOOLS/nats/go.sum" | cut -c 1-16)"; }

part_present() { [ -x "$OFA_BIN/nats-server" ]; }

# The user's own nats-server, if it is new enough.
own_nats_server() {
  local program
  program=$(type -aP nats-server | grep -vxF "$OFA_BIN/nats-server" | head -n 1)
  [ -n "$program" ] && version_at_least "$NATS_OLDEST" "$("$program" --version | sed 's/.*v//')" && printf '%s' "$program"
}

build_nats_server() {
  need_command go "Go $(go_version_wanted) or newer from https://go.dev/dl (or nats-server $NATS_OLDEST or newer)"
  local version
  version=$(cd / && go env GOVERSION)
  # From 1.21 on, go fetches the toolchain that go.mod names, unless it is told not to.
  version_at_least 1.21 "${version#go}" ||
    die "$version is too old; install Go $(go_version_wanted) or newer from https://go.dev/dl"
  CGO_ENABLED=0 GOBIN=$OFA_CACHE/build/nats \
    long_step "building nats-server" \
    go -C "$TOOLS/nats" install -v -trimpath github.com/nats-io/nats-server/v2
  mv "$OFA_CACHE/build/nats/nats-server" "$OFA_BIN/nats-server"
}

go_version_wanted() { sed -n 's/^go //p' "$TOOLS/nats/go.mod"; }

part_install() {
  local own
  rm -f "$OFA_BIN/nats-server"
  if own=$(own_nats_server); then
    say "    using $own"
    ln -s "$own" "$OFA_BIN/nats-server"
  else
    build_nats_server
  fi
}
