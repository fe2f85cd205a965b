# shellcheck shell=bash disable=SC2034
PART_WHY="checks that cargo, rustfmt and clippy are there and new enough"

# Nothing is installed: the toolchain is the user's own, so it is looked at every time.
part_key() { rust_version_wanted; }

rust_version_wanted() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPO/Cargo.toml"; }

rust_is_new_enough() {
  have cargo && version_at_least "$(rust_version_wanted)" "$(rustc --version | cut -d ' ' -f 2)"
}

part_present() { rust_is_new_enough && have cargo-fmt && have cargo-clippy; }

part_install() {
  need_command cargo "Rust $(rust_version_wanted) or newer from https://rustup.rs"
  rust_is_new_enough || die "$(rustc --version) is too old; run: rustup update (Rust $(rust_version_wanted) or newer is needed)"
  have cargo-fmt || die "rustfmt is missing; run: rustup component add rustfmt"
  have cargo-clippy || die "clippy is missing; run: rustup component add clippy"
}
