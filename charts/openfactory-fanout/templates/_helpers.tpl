{{- define "fanout.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "fanout.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "fanout.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What pods are selected by; call with (list $ "operator"). It never changes. */}}
{{- define "fanout.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "fanout.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "fanout.labels" -}}
{{- $root := index . 0 -}}
{{ include "fanout.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: openfactory-fanout
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* repository@digest, or repository:tag; call with (list $ image). */}}
{{- define "fanout.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end }}
{{- end }}

{{- define "fanout.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "fanout.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Apart on hosts if that is possible; call with (list $ "operator"). */}}
{{- define "fanout.spread" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "fanout.selector" . | nindent 12 }}
{{- end }}

{{/* Where pods lie, and with which image secrets; call with (list $ values). */}}
{{- define "fanout.scheduling" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
{{- $all := dict -}}
{{- with $root.Values.imagePullSecrets }}{{ $_ := set $all "imagePullSecrets" . }}{{ end -}}
{{- with $values.priorityClassName }}{{ $_ := set $all "priorityClassName" . }}{{ end -}}
{{- with $values.nodeSelector }}{{ $_ := set $all "nodeSelector" . }}{{ end -}}
{{- with $values.tolerations }}{{ $_ := set $all "tolerations" . }}{{ end -}}
{{- if $all }}{{ toYaml $all }}{{ end }}
{{- end }}

{{/* How Kafka is reached. */}}
{{- define "fanout.kafkaEnv" -}}
{{- $kafka := .Values.kafka -}}
- name: KAFKA_BROKER
  value: {{ $kafka.bootstrapServers | quote }}
{{- if or $kafka.tls.enabled $kafka.sasl.secretName }}
- name: KAFKA_SECURITY_PROTOCOL
  value: {{ ternary (ternary "SASL_SSL" "SSL" (ne $kafka.sasl.secretName "")) "SASL_PLAINTEXT" $kafka.tls.enabled }}
{{- end }}
{{- if and $kafka.tls.enabled $kafka.tls.secretName }}
- name: KAFKA_SSL_CA_FILE
  value: /etc/ofa/kafka/tls/ca.crt
{{- if $kafka.tls.clientCertificate }}
- name: KAFKA_SSL_CERT_FILE
  value: /etc/ofa/kafka/tls/tls.crt
- name: KAFKA_SSL_KEY_FILE
  value: /etc/ofa/kafka/tls/tls.key
{{- end }}
{{- end }}
{{- with $kafka.sasl }}
{{- if .secretName }}
- name: KAFKA_SASL_MECHANISM
  value: {{ .mechanism }}
- name: KAFKA_SASL_USERNAME
  valueFrom: {secretKeyRef: {name: {{ .secretName }}, key: username}}
- name: KAFKA_SASL_PASSWORD_FILE
  value: /etc/ofa/kafka/sasl/password
{{- end }}
{{- end }}
{{- end }}

{{- define "fanout.kafkaMounts" -}}
{{- if and .Values.kafka.tls.enabled .Values.kafka.tls.secretName -}}
- {name: kafka-tls, mountPath: /etc/ofa/kafka/tls, readOnly: true}
{{- end }}
{{- if .Values.kafka.sasl.secretName }}
- {name: kafka-sasl, mountPath: /etc/ofa/kafka/sasl, readOnly: true}
{{- end }}
{{- end }}

{{- define "fanout.kafkaVolumes" -}}
{{- if and .Values.kafka.tls.enabled .Values.kafka.tls.secretName -}}
- name: kafka-tls
  secret: {secretName: {{ .Values.kafka.tls.secretName }}, defaultMode: 0440}
{{- end }}
{{- if .Values.kafka.sasl.secretName }}
- name: kafka-sasl
  secret: {secretName: {{ .Values.kafka.sasl.secretName }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{/* What the operator does in the namespaces it works in. */}}
{{- define "fanout.rules" -}}
- apiGroups: [fanout.openfactory.io]
  resources: [natsshards, forwarderpools, assetgroups]
  # patch: finalizers
  verbs: [get, list, watch, patch]
- apiGroups: [fanout.openfactory.io]
  resources: [natsshards/status, forwarderpools/status, assetgroups/status]
  verbs: [patch]
- apiGroups: [fanout.openfactory.io]
  # autoscaling
  resources: [forwarderpools/scale]
  verbs: [patch]
- apiGroups: [""]
  resources: [secrets, services, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  # delete: one node at a time is replaced through the gate
  resources: [pods]
  verbs: [list, watch, delete]
- apiGroups: [apps]
  resources: [statefulsets, deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
