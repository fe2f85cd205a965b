# shellcheck shell=bash disable=SC2034
PART_WHY="cargo-deny, which checks the licences, sources and advisories of all dependencies"

DENY_VERSION=0.20.2

part_key() { printf 'cargo-deny %s' "$DENY_VERSION"; }

part_present() { [ -x "$OFA_BIN/cargo-deny" ]; }

part_install() { cargo_tool cargo-deny "$DENY_VERSION"; }
