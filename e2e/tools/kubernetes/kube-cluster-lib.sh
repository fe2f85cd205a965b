# shellcheck shell=bash
# What kube-cluster is made of: processes that are found again, certificates, and the wait for something to answer.

# start NAME COMMAND...: in the background, in a session of its own, with its log and a note of its pid. The note holds
# the start time too, so that another process which has got the same pid is never taken for it.
start() {
  local name=$1
  shift
  setsid nohup "$@" >>"$DIR/log/$name.log" 2>&1 </dev/null &
  printf '%s %s\n' "$!" "$(start_time $!)" >"$DIR/pids/$name"
}

start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

# pid_of NAME: the pid, if it still runs
pid_of() {
  local pid started
  read -r pid started 2>/dev/null <"$DIR/pids/$1" || return 1
  [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ] && printf '%s' "$pid"
}

# stop NAME: asks it to end, and kills it after ten seconds
stop() {
  local pid tries=0
  if pid=$(pid_of "$1"); then
    kill "$pid" 2>/dev/null || true
    while pid_of "$1" >/dev/null && [ $((tries += 1)) -lt 100 ]; do sleep 0.1; done
    ! pid_of "$1" >/dev/null || kill -9 "$pid" 2>/dev/null || true
  fi
  rm -f "$DIR/pids/$1"
}

# wait_for SECONDS WHAT COMMAND...
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      printf 'error: %s has not come up; see %s/log\n' "$what" "$DIR" >&2
      return 1
    fi
    sleep 0.2
  done
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Below the range that the kernel gives to outgoing connections.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 10000))
    if port_is_free "$port"; then
      printf '%s' "$port"
      return
    fi
  done
}

make_keys() {
  mkdir -p "$DIR/pki"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 -days 3650 -subj /CN=ofa-test-ca \
    -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature -keyout "$DIR/pki/ca.key" -out "$DIR/pki/ca.crt" 2>/dev/null
  openssl genrsa -out "$DIR/pki/accounts.key" 2048 2>/dev/null
  openssl rsa -in "$DIR/pki/accounts.key" -pubout -out "$DIR/pki/accounts.pub" 2>/dev/null
  certificate apiserver /CN=kube-apiserver "IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc"
  certificate admin /O=system:masters/CN=admin
  certificate controller-manager /CN=system:kube-controller-manager
  certificate scheduler /CN=system:kube-scheduler
}

# certificate NAME SUBJECT [ALTERNATIVE_NAMES]: key and certificate of the cluster's authority
certificate() {
  local name=$1 subject=$2 alternatives=${3:-}
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 -subj "$subject" \
    -keyout "$DIR/pki/$name.key" -out "$DIR/pki/$name.csr" 2>/dev/null
  {
    printf 'basicConstraints=critical,CA:false\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth,serverAuth\n'
    [ -z "$alternatives" ] || printf 'subjectAltName=%s\n' "$alternatives"
  } >"$DIR/pki/$name.ext"
  openssl x509 -req -in "$DIR/pki/$name.csr" -CA "$DIR/pki/ca.crt" -CAkey "$DIR/pki/ca.key" -CAcreateserial -days 365 \
    -sha256 -extfile "$DIR/pki/$name.ext" -out "$DIR/pki/$name.crt" 2>/dev/null
}

# kubeconfig NAME: for the certificate NAME
kubeconfig() {
  (
    umask 077
    cat >"$DIR/$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://127.0.0.1:$API_PORT", certificate-authority-data: $(base64 -w 0 "$DIR/pki/ca.crt")}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w 0 "$DIR/pki/$1.crt"), client-key-data: $(base64 -w 0 "$DIR/pki/$1.key")}}]
contexts: [{name: test, context: {cluster: test, user: $1}}]
current-context: test
YAML
  )
}
