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
{{- include "sanpath.imageOf" (dict "image" .Values.image "version" .Chart.AppVersion) -}}
{{- end }}

{{/* One with ssh in it, perhaps. */}}
{{- define "sanpath.controllerImage" -}}
{{- $own := .Values.controller.image -}}
{{- include "sanpath.imageOf" (dict "image" (ternary $own .Values.image (ne $own.repository "")) "version" .Chart.AppVersion) -}}
{{- end }}

{{- define "sanpath.imageOf" -}}
{{ .image.repository }}{{ if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag | default .version }}{{ end }}
{{- end }}

{{/* The config file: each partition with its name, and where the Secrets are mounted. */}}
{{- define "sanpath.config" -}}
{{- $partitions := dict -}}
{{- $seen := list -}}
{{- range .Values.partitions -}}
{{- if has (lower .name) $seen }}{{ fail (printf "partitions: %q is there twice; names that differ in case alone are the same" .name) }}{{ end -}}
{{- $seen = append $seen (lower .name) -}}
{{- $settings := deepCopy .settings -}}
{{- if not (has .settings.blockstoragemanager (list "vnx" "equallogic")) -}}
{{- $settings = set $settings "tls" (printf "/etc/sanpath-tls/%s" .name) -}}
{{- end -}}
{{- if ne .settings.blockstoragemanager "linux" -}}
{{- $settings = set $settings "sanCredentials" (printf "/etc/sanpath-array/%s" .name) -}}
{{- end -}}
{{- if .chap -}}
{{- $settings = set $settings "credentials" (printf "/etc/sanpath-credentials/%s" .name) -}}
{{- end -}}
{{- $partitions = set $partitions .name $settings -}}
{{- end -}}
{{- $archives := dict -}}
{{- $seen = list -}}
{{- range .Values.archives -}}
{{- if has (lower .name) $seen }}{{ fail (printf "archives: %q is there twice; names that differ in case alone are the same" .name) }}{{ end -}}
{{- $seen = append $seen (lower .name) -}}
{{- $settings := deepCopy .settings -}}
{{- if eq .settings.kind "s3" -}}
{{- $settings = set $settings "credentials" (printf "/etc/sanpath-archives/%s" .name) -}}
{{- end -}}
{{- if .ca -}}
{{- $settings = set $settings "ca" (printf "/etc/sanpath-archives/%s/ca.crt" .name) -}}
{{- end -}}
{{- if .encrypted -}}
{{- $settings = set $settings "encryptionKey" (printf "/etc/sanpath-archive-keys/%s/key" .name) -}}
{{- end -}}
{{- $archives = set $archives .name $settings -}}
{{- end -}}
{{- $archivers := dict -}}
{{- $nodes := dict -}}
{{- range .Values.archivers -}}
{{- with get $nodes .node }}{{ fail (printf "archivers: %q is the machine of two; there is room for one ledger, and one name of an initiator beside the machine's" .) }}{{ end -}}
{{- $nodes = set $nodes .node .node -}}
{{- if hasKey $archivers .name }}{{ fail (printf "archivers: %q is there twice" .name) }}{{ end -}}
{{- $settings := dict "address" (printf "%s-archiver-%s.%s.svc:7430" $.Values.name .name $.Release.Namespace) "tls" "/etc/sanpath-archivers-tls" -}}
{{- with .partitions }}{{ $settings = set $settings "partitions" . }}{{ end -}}
{{- $archivers = set $archivers .name $settings -}}
{{- end -}}
{{- if and $archives (not $archivers) }}{{ fail "archives: nothing fills them; name an archiver under archivers" }}{{ end -}}
{{- if and $archivers (not $archives) }}{{ fail "archivers: there is nothing to fill; name an archive under archives" }}{{ end -}}
version: 1
partitions:
  {{- $partitions | toYaml | nindent 2 }}
{{- if $archives }}
archives:
  {{- $archives | toYaml | nindent 2 }}
archivers:
  {{- $archivers | toYaml | nindent 2 }}
{{- end }}
{{- end }}

{{- define "sanpath.tlsSecret" -}}
{{ .partition.tlsSecret | default (printf "%s-tls-%s" .root.Values.name (lower .partition.name)) }}
{{- end }}

{{- define "sanpath.arraySecret" -}}
{{ .partition.arraySecret | default (printf "%s-array-%s" .root.Values.name (lower .partition.name)) }}
{{- end }}

{{- define "sanpath.credentialsSecret" -}}
{{ .partition.credentialsSecret | default (printf "%s-credentials-%s" .root.Values.name (lower .partition.name)) }}
{{- end }}

{{- define "sanpath.archiverSecret" -}}
{{ .archiver.tlsSecret | default (printf "%s-archiver-%s" .root.Values.name .archiver.name) }}
{{- end }}

{{- define "sanpath.archiveSecret" -}}
{{ .archive.credentialsSecret | default (printf "%s-archive-%s" .root.Values.name (lower .archive.name)) }}
{{- end }}

{{- define "sanpath.archiveKeySecret" -}}
{{ .archive.keySecret | default (printf "%s-archive-key-%s" .root.Values.name (lower .archive.name)) }}
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

{{/* What both plugins are told alike. */}}
{{- define "sanpath.daemonArgs" -}}
- --endpoint=unix:///csi/csi.sock
- --config=/etc/sanpath/config.yaml
- --driver-name={{ .Values.driverName }}
{{- include "sanpath.logArgs" . }}
{{- end }}

{{/* Begins each of its lines anew. */}}
{{- define "sanpath.logArgs" -}}
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
