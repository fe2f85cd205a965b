# shellcheck shell=bash
# What a node of kube-nodes is made of. DIR, API_IP, IMAGES and SELF are its caller's.

NET=10.98.0
BRIDGE=ofa-nodes
# The hierarchies of cgroup v1, and v2 where it is mounted beside them: runc makes groups in all.
CGROUPS=$(awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/mounts)
# What kubelet sets for the whole machine; put back in the end.
SYSCTLS=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops fs.inotify.max_user_instances)

network() {
  local name
  [ -e "$DIR/sysctls" ] || for name in "${SYSCTLS[@]}"; do echo "$name=$(sysctl -n "$name")"; done >"$DIR/sysctls"
  [ "$(sysctl -n fs.inotify.max_user_instances)" -ge 1024 ] || sysctl -qw fs.inotify.max_user_instances=1024
  ip link show "$BRIDGE" >/dev/null 2>&1 && return 0
  ip link add "$BRIDGE" type bridge
  ip addr add "$NET.1/24" dev "$BRIDGE"
  ip link set "$BRIDGE" up
}

no_network() {
  local name node
  ip netns list 2>/dev/null | awk '/^ofa-node-/ { print $1 }' | while read -r name; do
    node=${name#ofa-node-}
    ip netns del "$name"
    ip link del "ofav$node" 2>/dev/null || true
    ip route del "10.244.$node.0/24" 2>/dev/null || true
  done
  ip link del "$BRIDGE" 2>/dev/null || true
  [ ! -e "$DIR/sysctls" ] || sysctl -qp "$DIR/sysctls" >/dev/null || true
  rm -f "$DIR/sysctls"
}

node_network() {
  local node=$1 space=ofa-node-$1 other
  ip netns add "$space"
  ip link add "ofav$node" type veth peer name eth0 netns "$space"
  ip link set "ofav$node" master "$BRIDGE" up
  ip -n "$space" link set lo up
  ip -n "$space" addr add "$NET.$((10 + node))/24" dev eth0
  ip -n "$space" link set eth0 up
  ip -n "$space" route add default via "$NET.1"
  nsenter --net="/run/netns/$space" sysctl -qw net.ipv4.ip_forward=1
  ip route replace "10.244.$node.0/24" via "$NET.$((10 + node))"
  for other in $(seq 9); do
    [ "$other" = "$node" ] || ip -n "$space" route replace "10.244.$other.0/24" via "$NET.$((10 + other))"
  done
}

# A group of the node's own in every hierarchy; cpuset wants its processors and memory named.
node_cgroup() {
  local root
  for root in $CGROUPS; do
    mkdir -p "$root/ofa-node-$1"
    [ ! -f "$root/ofa-node-$1/cpuset.cpus" ] || [ ! -s "$root/cpuset.cpus" ] || {
      cat "$root/cpuset.cpus" >"$root/ofa-node-$1/cpuset.cpus"
      cat "$root/cpuset.mems" >"$root/ofa-node-$1/cpuset.mems"
    }
  done
}

# Pods of a node without power take a moment to be reaped.
no_node_cgroup() {
  local root tries
  for root in $CGROUPS; do
    for tries in 1 2 3 4 5; do
      [ -d "$root/ofa-node-$1" ] || break
      find "$root/ofa-node-$1" -depth -type d -exec rmdir {} \; 2>/dev/null || true
      [ ! -d "$root/ofa-node-$1" ] || sleep "0.$tries"
    done
  done
}

node_files() {
  local node=$1 name=node-$1 home=$DIR/node-$1
  mkdir -p "$home"/{kubelet,containerd,run,log,cni,cni-state,netns,conf}
  certificate "$name" "/O=system:nodes/CN=system:node:$name" "DNS:$name,IP:$NET.$((10 + node))"
  kubeconfig "$name"
  sed -i "s#https://127.0.0.1:#https://$API_IP:#" "$DIR/$name.kubeconfig"
  cat >"$home/cni/10-pods.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": false,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.$node.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  # restrict_oom_score_adj: where root may not lower it, as in many containers and machines of CI.
  cat >"$home/conf/containerd.toml" <<TOML
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
TOML
  echo "nameserver $NET.1" >"$home/conf/resolv.conf"
  cat >"$home/conf/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /ofa-node-$node
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
address: $NET.$((10 + node))
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $DIR/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $DIR/pki/$name.crt
tlsPrivateKeyFile: $DIR/pki/$name.key
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: $home/conf/resolv.conf
failSwapOn: false
oomScoreAdj: 0
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
nodeStatusUpdateFrequency: 5s
YAML
  cat >"$home/conf/kube-proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $DIR/kube-proxy.kubeconfig}
mode: iptables
oomScoreAdj: 0
clusterCIDR: 10.244.0.0/16
hostnameOverride: $name
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
iptables: {minSyncPeriod: 100ms, syncPeriod: 30s}
YAML
}

# The first process of a node's process namespace: when it goes, all of the node's containers go.
inner() {
  local node=$1 name=node-$1 home=$DIR/node-$1 image mark
  mount --make-rshared /
  mkdir -p /var/lib/kubelet /var/lib/containerd /run/containerd /var/lib/cni /etc/cni/net.d /run/netns
  mount --bind "$home/kubelet" /var/lib/kubelet
  mount --make-shared /var/lib/kubelet
  mount --bind "$home/containerd" /var/lib/containerd
  mount --bind "$home/run" /run/containerd
  mount --bind "$home/cni" /etc/cni/net.d
  mount --bind "$home/cni-state" /var/lib/cni
  mount --bind "$home/log" /var/log
  mount --bind "$home/netns" /run/netns
  rm -rf "${home:?}"/{run,netns,cni-state}/*
  hostname "$name"
  containerd --config "$home/conf/containerd.toml" >>"$DIR/log/$name.containerd.log" 2>&1 &
  until ctr --address /run/containerd/containerd.sock version >/dev/null 2>&1; do sleep 0.1; done
  for image in "$DIR"/images/*.tar; do
    mark=$home/containerd/.imported.$(basename "$image")
    [ "$mark" -nt "$image" ] || { ctr -n k8s.io images import "$image" >>"$DIR/log/$name.containerd.log" 2>&1 && touch "$mark"; }
  done
  kubelet --config="$home/conf/kubelet.yaml" --kubeconfig="$DIR/$name.kubeconfig" --hostname-override="$name" \
    --node-ip="$NET.$((10 + node))" --root-dir=/var/lib/kubelet \
    --node-labels="topology.kubernetes.io/zone=zone-$(((node - 1) % 3 + 1))" >>"$DIR/log/$name.kubelet.log" 2>&1 &
  kube-proxy --config="$home/conf/kube-proxy.yaml" >>"$DIR/log/$name.kube-proxy.log" 2>&1 &
  trap 'exit 0' TERM INT
  wait
}

node_start() {
  local node=$1
  ! pid_of "node-$node" >/dev/null || return 0
  [ -e "/run/netns/ofa-node-$node" ] || node_network "$node"
  node_cgroup "$node"
  node_files "$node"
  start "node-$node" nsenter --net="/run/netns/ofa-node-$node" \
    unshare --mount --uts --ipc --pid --fork --kill-child --mount-proc "$SELF" inner "$DIR" "$node"
}

# As by a power cut: everything of the node ends at once.
node_stop() {
  local pid
  ! pid=$(pid_of "node-$1") || kill -9 "$pid"
  rm -f "$DIR/pids/node-$1"
  sleep 0.5
  no_node_cgroup "$1"
}
