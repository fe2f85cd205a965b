# shellcheck shell=bash disable=SC2034
PART_WHY="cargo-fuzz, which feeds anything to what comes from outside"

FUZZ_VERSION=0.13.1

part_key() { printf 'cargo-fuzz %s' "$FUZZ_VERSION"; }

part_present() { [ -x "$OFA_BIN/cargo-fuzz" ]; }

part_install() { cargo_tool cargo-fuzz "$FUZZ_VERSION"; }
