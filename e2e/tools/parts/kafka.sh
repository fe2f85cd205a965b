# shellcheck shell=bash disable=SC2034
PART_WHY="Apache Kafka (jars, kafka-server, kafka-cli): the broker of the demo and of the tests"

KAFKA_FILES=(pom.xml log4j2.yaml log4j2-cli.yaml jvm.sh kafka-server kafka-cli)

kafka_version() { sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$TOOLS/kafka/pom.xml"; }

installation() {
  if [ -n "${KAFKA_HOME:-}" ]; then
    printf '%s/kafka-own' "$OFA_CACHE"
  else
    printf '%s/kafka-%s' "$OFA_CACHE" "$(kafka_version)"
  fi
}

# Of the JVM too: it accepts only class-data archives that it has written itself.
part_key() {
  local java
  java=$(readlink -f "$(command -v "${JAVA_HOME:+$JAVA_HOME/bin/}java")") || java=none
  printf 'kafka %s %s %s' "${KAFKA_HOME:-$(kafka_version)}" "$java" \
    "$(cd "$TOOLS/kafka" && cat "${KAFKA_FILES[@]}" | sha256sum | cut -c 1-16)"
}

part_present() {
  [ -x "$OFA_BIN/kafka-server" ] && [ -x "$OFA_BIN/kafka-cli" ] && [ -d "$(installation)/libs/" ]
}

part_install() {
  need_command java "a JDK, version 17 or newer (Debian: default-jdk-headless)"
  local home
  home=$(installation)
  mkdir -p "$home/bin" "$home/config"
  install_libs "$home"
  install -m 644 "$TOOLS"/kafka/log4j2*.yaml "$home/config/"
  install -m 644 "$TOOLS/kafka/jvm.sh" "$home/bin/"
  install -m 755 "$TOOLS/kafka/kafka-server" "$TOOLS/kafka/kafka-cli" "$home/bin/"
  ln -sfn "$home/bin/kafka-server" "$home/bin/kafka-cli" "$OFA_BIN/"
  long_step "measuring a first start of Kafka, to make the next ones fast" make_class_archive "$home"
}

install_libs() {
  local home=$1
  if [ -n "${KAFKA_HOME:-}" ]; then
    compgen -G "$KAFKA_HOME/libs/kafka_*.jar" >/dev/null || die "KAFKA_HOME=$KAFKA_HOME has no libs/kafka_*.jar; unset it or correct it"
    say "    using the jars of $KAFKA_HOME"
    ln -sfn "$(readlink -f "$KAFKA_HOME/libs")" "$home/libs"
    return
  fi
  # Brokers that run from these jars must not lose them for a change elsewhere.
  if [ -d "$home/libs/" ] && cmp -s "$TOOLS/kafka/pom.xml" "$home/pom.xml"; then
    return
  fi
  need_command mvn "Maven (Debian: maven), or set KAFKA_HOME to a Kafka distribution"
  rm -rf "$home/libs" "$home/libs.new"
  long_step "fetching the jars of Kafka $(kafka_version)" \
    mvn --batch-mode --file "$TOOLS/kafka/pom.xml" dependency:copy-dependencies "-DoutputDirectory=$home/libs.new"
  mv "$home/libs.new" "$home/libs"
  install -m 644 "$TOOLS/kafka/pom.xml" "$home/"
}

# A broker is started once, used a little and stopped; the JVM then writes down the classes that it has loaded (class-data
# sharing), for the next one to map into memory. A subshell, so that an interruption ends the broker too.
make_class_archive() (
  home=$1 work=$(mktemp -d) port=$(free_port_pair)
  rm -f "$home/kafka.jsa"
  KAFKA_LISTENERS=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1)) KAFKA_LOG_DIRS=$work/data \
    KAFKA_OPTS=-XX:ArchiveClassesAtExit=$home/kafka.jsa.new "$home/bin/kafka-server" >"$OFA_CACHE/log/kafka-first-start.log" &
  broker=$!
  trap 'kill -TERM "$broker" 2>/dev/null && wait "$broker" || true; rm -rf "$work"' EXIT

  # The tools wait for a broker that is starting. Every step by hand: `set -e` is off in here, under `||`.
  "$home/bin/kafka-cli" TopicCommand --bootstrap-server "127.0.0.1:$port" --create --topic warm-up --partitions 2 || exit
  "$home/bin/kafka-cli" ProducerPerformance --bootstrap-server "127.0.0.1:$port" --topic warm-up \
    --num-records 1000 --record-size 200 --throughput -1 || exit
  kill -TERM "$broker" || exit
  wait "$broker" # not zero: it ends by the signal
  mv "$home/kafka.jsa.new" "$home/kafka.jsa"
)

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Below the range that the kernel gives to outgoing connections.
free_port_pair() {
  local port
  while :; do
    port=$((20000 + RANDOM % 10000))
    if port_is_free "$port" && port_is_free $((port + 1)); then
      printf '%s' "$port"
      return
    fi
  done
}
