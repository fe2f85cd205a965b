# shellcheck shell=bash
# How the Kafka programs of this folder start a JVM. They are installed in bin/ of a folder with Kafka's jars in libs/.

INSTALLATION=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# exec_java OPTION... CLASS ARGUMENT...: becomes the JVM, so that a supervisor's signals reach it.
exec_java() {
  local java=${JAVA_HOME:+$JAVA_HOME/bin/}java options=()
  command -v "$java" >/dev/null || die "'$java' is not there; install a JDK, version 17 or newer, or set JAVA_HOME"
  CLASSPATH=$(class_path)
  export CLASSPATH
  # Makes a JVM start in half the time. One that the archive does not fit goes on without, hence only its errors are shown.
  [ ! -f "$INSTALLATION/kafka.jsa" ] || options=(-Xshare:auto "-XX:SharedArchiveFile=$INSTALLATION/kafka.jsa")
  exec "$java" "${options[@]}" -Xlog:disable -Xlog:all=error:stderr "$@"
}

# Sorted, since the archive is valid for one exact class path only.
class_path() {
  local jars IFS=:
  jars=("$(readlink -f "${KAFKA_HOME:-$INSTALLATION}/libs")"/*.jar)
  [ -e "${jars[0]}" ] ||
    die "no jars in ${KAFKA_HOME:-$INSTALLATION}/libs; run 'e2e/tools/setup kafka', or set KAFKA_HOME to a Kafka distribution"
  printf '%s' "${jars[*]}"
}
