# shellcheck shell=bash
# How the Kafka programs of this folder start a JVM. They are installed in bin/ of a folder with Kafka's jars in libs/.

INSTALLATION=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# Finds the JVM and the jars, or says what is missing. Once, before exec_java.
find_java() {
  JAVA=${JAVA_HOME:+$JAVA_HOME/bin/}java
  command -v "$JAVA" >/dev/null || die "'$JAVA' is not there; install a JDK, version 17 or newer, or set JAVA_HOME"
  CLASSPATH=$(class_path) ||
    die "no jars in ${KAFKA_HOME:-$INSTALLATION}/libs; run 'e2e/tools/setup kafka', or set KAFKA_HOME to a Kafka distribution"
  export CLASSPATH
}

# exec_java OPTION... CLASS ARGUMENT...: becomes the JVM, so that a supervisor's signals reach it.
exec_java() {
  local archive=()
  # Makes a JVM start in half the time. One that the archive does not fit goes on without, hence only its errors are shown.
  [ ! -f "$INSTALLATION/kafka.jsa" ] || archive=(-Xshare:auto "-XX:SharedArchiveFile=$INSTALLATION/kafka.jsa")
  exec "$JAVA" "${archive[@]}" -Xlog:disable -Xlog:all=error:stderr "$@"
}

# Sorted, since the archive is valid for one exact class path only.
class_path() {
  local jars IFS=:
  jars=("$(readlink -f "${KAFKA_HOME:-$INSTALLATION}/libs")"/*.jar)
  [ -e "${jars[0]}" ] && printf '%s' "${jars[*]}"
}
