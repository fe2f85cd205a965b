{{/*
What answers HTTP: a Deployment, its Service, its budget. Call with a dict: root, name (of the program and the component),
values, port, env (YAML).
*/}}
{{- define "fanout.serving" -}}
{{- $root := .root -}}
{{- $values := .values -}}
{{- $me := list $root .name -}}
{{- $fullname := printf "%s-%s" (include "fanout.fullname" $root) .name -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $fullname }}
  labels:
    {{- include "fanout.labels" $me | nindent 4 }}
spec:
  replicas: {{ $values.replicas }}
  selector:
    matchLabels:
      {{- include "fanout.selector" $me | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "fanout.labels" $me | nindent 8 }}
        {{- with $values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $values.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- with include "fanout.scheduling" (list $root $values) }}
      {{- . | nindent 6 }}
      {{- end }}
      affinity:
        {{- include "fanout.spread" $me | nindent 8 }}
      securityContext:
        {{- include "fanout.podSecurity" $root | nindent 8 }}
      containers:
        - name: {{ .name }}
          image: {{ include "fanout.image" (list $root $root.Values.serving.image) }}
          imagePullPolicy: {{ $root.Values.serving.image.pullPolicy }}
          args:
            - {{ .name }}
            {{- with $values.extraArgs }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          env:
            - {name: BIND_ADDRESS, value: 0.0.0.0}
            - {name: PORT, value: {{ .port | quote }}}
            {{- include "fanout.kafkaEnv" $root | nindent 12 }}
            - name: SHARD_MAP_TOPIC
              value: {{ $root.Values.shardMapTopic | quote }}
            {{- with $values.forwarderPool }}
            - name: FORWARDER_POOL
              value: {{ . | quote }}
            {{- end }}
            - name: LOG_LEVEL
              value: {{ $values.logLevel | quote }}
            {{- with .env }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- with $values.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - {name: http, containerPort: {{ .port }}}
          readinessProbe:
            httpGet: {path: /ready, port: http}
            periodSeconds: 2
            timeoutSeconds: 2
          livenessProbe:
            httpGet: {path: /health, port: http}
            initialDelaySeconds: 10
            timeoutSeconds: 5
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          securityContext:
            {{- include "fanout.containerSecurity" $root | nindent 12 }}
          {{- with include "fanout.kafkaMounts" $root }}
          volumeMounts:
            {{- . | trim | nindent 12 }}
          {{- end }}
      {{- with include "fanout.kafkaVolumes" $root }}
      volumes:
        {{- . | trim | nindent 8 }}
      {{- end }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $fullname }}
  labels:
    {{- include "fanout.labels" $me | nindent 4 }}
spec:
  type: {{ $values.service.type }}
  selector:
    {{- include "fanout.selector" $me | nindent 4 }}
  ports:
    - {name: http, port: {{ $values.service.port }}, targetPort: http}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $fullname }}
  labels:
    {{- include "fanout.labels" $me | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "fanout.selector" $me | nindent 6 }}
{{- end }}
