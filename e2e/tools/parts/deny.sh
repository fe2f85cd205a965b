# shellcheck shell=bash disable=SC2034
PART_WHY="cargo-deny, which checks the licences, sources and advisories of all dependencies"

DENY_VERSION=0.20.2

part_key() { printf 'cargo-deny %s' "$DENY_VERSION"; }

part_present() { [ -x "$OFA_BIN/cargo-deny" ]; }

part_install() {
  need_command cargo "Rust from https://rustup.rs"
  local build=$OFA_CACHE/build/cargo-deny
  # Kept until it succeeds, so that an interrupted build goes on where it stopped. Little optimisation: it runs for a
  # second a day, and half of its build time would be the optimiser's.
  CARGO_TARGET_DIR=$build CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    long_step "building cargo-deny $DENY_VERSION" \
    cargo install --locked --force --version "$DENY_VERSION" --root "$OFA_CACHE" cargo-deny
  rm -rf "$build"
}
