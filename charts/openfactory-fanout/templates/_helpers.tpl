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
- apiGroups: [fanout.openfactory.io]
  # owner references that block an owner's deletion
  resources: [natsshards/finalizers, forwarderpools/finalizers, assetgroups/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [configmaps, secrets, services, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  # delete: one node at a time is replaced through the gate
  resources: [pods]
  verbs: [get, list, watch, delete]
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
