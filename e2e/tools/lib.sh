# shellcheck shell=bash
# What the scripts of this folder share: where things are, how they talk to the user, how long steps show that they live.

TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(cd "$TOOLS/../.." && pwd)

# Everything installed goes here: outside the checkout, so that a fresh clone or `git clean` does not cost it.
export OFA_CACHE=${OFA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/openfactory-fanout}
# Where the parts put programs; to be on PATH.
export OFA_BIN=$OFA_CACHE/bin

say() { printf '%s\n' "$*" >&2; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# need_command PROGRAM WHAT_TO_INSTALL
need_command() {
  have "$1" || die "'$1' is not on PATH; install $2, then run this again"
}

# version_at_least WANTED ACTUAL
version_at_least() {
  [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

# The newest line of a log while it grows: rewritten in place on a terminal, every 15 s in a log file.
show_progress() {
  local message=$1 log=$2 owner=$3 seconds=0 line
  while sleep 1 && kill -0 "$owner" 2>/dev/null; do
    seconds=$((seconds + 1))
    line=$(tail -n 1 "$log" | tr -d '\r\033' | cut -c 1-60)
    if [ -t 2 ]; then
      printf '\r\033[K    %s: %d s  %s' "$message" "$seconds" "$line" >&2
    elif [ $((seconds % 15)) -eq 0 ]; then
      say "    $message: $seconds s  $line"
    fi
  done
}

# long_step MESSAGE COMMAND...: runs the command with its output in a log file, shows that it lives, and prints the end
# of the log when it fails. The command stays in the foreground, so that Ctrl-C reaches it.
long_step() {
  local message=$1 log started=$SECONDS status=0 progress
  shift
  mkdir -p "$OFA_CACHE/log"
  log=$OFA_CACHE/log/${message//[^A-Za-z0-9.-]/_}.log
  : >"$log"
  # Without the lock: an interrupted set-up must not hold it until the last progress line.
  # shellcheck disable=SC2154
  show_progress "$message" "$log" $$ {lock_fd}>&- &
  progress=$!
  "$@" >"$log" 2>&1 || status=$?
  kill "$progress" 2>/dev/null || true
  wait "$progress" 2>/dev/null || true
  [ ! -t 2 ] || printf '\r\033[K' >&2
  if [ "$status" -ne 0 ]; then
    tail -n 30 "$log" >&2
    die "$message failed; the whole output is in $log"
  fi
  say "    $message: done in $((SECONDS - started)) s"
}

# cargo_tool NAME VERSION: installs one of cargo's tools. What was built is kept until it succeeds, so that an interrupted
# build goes on where it stopped. Little optimisation: half of its build time would be the optimiser's.
cargo_tool() {
  local name=$1 version=$2 build=$OFA_CACHE/build/$1
  need_command cargo "Rust from https://rustup.rs"
  CARGO_TARGET_DIR=$build CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    long_step "building $name $version" \
    cargo install --locked --force --version "$version" --root "$OFA_CACHE" "$name"
  rm -rf "$build"
}

# The folder cargo builds into, whether set by CARGO_TARGET_DIR, a cargo configuration or not at all.
target_dir() {
  cargo metadata --manifest-path "$REPO/Cargo.toml" --no-deps --format-version 1 |
    sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}
