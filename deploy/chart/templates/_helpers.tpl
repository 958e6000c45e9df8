{{- define "sanpath.selector" -}}
app.kubernetes.io/name: {{ .root.Values.name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "sanpath.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "sanpath.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* The config file: each partition with its name, and where the Secrets are mounted. */}}
{{- define "sanpath.config" -}}
{{- $partitions := dict -}}
{{- $seen := list -}}
{{- range .Values.partitions -}}
{{- if has (lower .name) $seen }}{{ fail (printf "partitions: %q is there twice; names that differ in case alone are the same" .name) }}{{ end -}}
{{- $seen = append $seen (lower .name) -}}
{{- $settings := set (deepCopy .settings) "tls" (printf "/etc/sanpath-tls/%s" .name) -}}
{{- if .chap -}}
{{- $settings = set $settings "credentials" (printf "/etc/sanpath-credentials/%s" .name) -}}
{{- end -}}
{{- $partitions = set $partitions .name $settings -}}
{{- end -}}
version: 1
partitions:
  {{- $partitions | toYaml | nindent 2 }}
{{- end }}

{{- define "sanpath.tlsSecret" -}}
{{ .partition.tlsSecret | default (printf "%s-tls-%s" .root.Values.name (lower .partition.name)) }}
{{- end }}

{{- define "sanpath.credentialsSecret" -}}
{{ .partition.credentialsSecret | default (printf "%s-credentials-%s" .root.Values.name (lower .partition.name)) }}
{{- end }}

{{/* Stops, with the place, at a name that is none of the partitions. */}}
{{- define "sanpath.knownPartition" -}}
{{- $name := .name -}}
{{- $known := list -}}
{{- range .root.Values.partitions }}{{ $known = append $known .name }}{{ end -}}
{{- if not (has $name $known) -}}
{{- fail (printf "%s: there is no partition %q; partitions has %s" .place $name (join ", " $known)) -}}
{{- end -}}
{{- end }}

{{- define "sanpath.unprivileged" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "sanpath.namespaceVariable" -}}
- name: NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- end }}

{{/* What every daemon of ours is told alike. */}}
{{- define "sanpath.daemonArgs" -}}
- --endpoint=unix:///csi/csi.sock
- --config=/etc/sanpath/config.yaml
- --driver-name={{ .Values.driverName }}
{{- if ne .Values.log.level "info" }}
- --log={{ .Values.log.level }}
{{- end }}
{{- if ne .Values.log.format "text" }}
- --log-format={{ .Values.log.format }}
{{- end }}
{{- end }}

{{/* A sidecar of the controller that watches the API server. */}}
{{- define "sanpath.sidecar" -}}
- name: {{ .name }}
  image: {{ .sidecar.image }}
  args:
    - --csi-address=/csi/csi.sock
    - --timeout=60s
    - --leader-election
    - --leader-election-namespace=$(NAMESPACE)
    {{- range .args }}
    - {{ . }}
    {{- end }}
    {{- with .sidecar.extraArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  env:
    {{- include "sanpath.namespaceVariable" . | nindent 4 }}
    {{- with .env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .sidecar.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "sanpath.unprivileged" . | nindent 4 }}
  volumeMounts:
    - name: socket
      mountPath: /csi
{{- end }}
