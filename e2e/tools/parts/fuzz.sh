# shellcheck shell=bash disable=SC2034
PART_WHY="cargo-fuzz, which feeds anything to what comes from outside"

FUZZ_VERSION=0.13.1

part_key() { printf 'cargo-fuzz %s' "$FUZZ_VERSION"; }

part_present() { [ -x "$OFA_BIN/cargo-fuzz" ]; }

part_install() {
  need_command cargo "Rust from https://rustup.rs"
  local build=$OFA_CACHE/build/cargo-fuzz
  CARGO_TARGET_DIR=$build long_step "building cargo-fuzz $FUZZ_VERSION" \
    cargo install --locked --force --version "$FUZZ_VERSION" --root "$OFA_CACHE" cargo-fuzz
  rm -rf "$build"
}
