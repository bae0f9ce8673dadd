{{/* Names and labels. Every helper that belongs to one component takes (list . "scorer"). */}}

{{- define "pointsman.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "pointsman.component" -}}
{{- $root := index . 0 -}}
{{- printf "%s-%s" (include "pointsman.fullname" $root) (index . 1) -}}
{{- end -}}

{{- define "pointsman.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: pointsman
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "pointsman.labels" -}}
{{- $root := index . 0 -}}
{{ include "pointsman.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{- define "pointsman.image" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 0).Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* What every pod has: no token, no privileges, no root, no writes, no names of other Services in its environment. */}}
{{- define "pointsman.podSecurity" -}}
automountServiceAccountToken: false
# Kubernetes would inject one variable per Service of the namespace into every process.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "pointsman.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Spread over zones and nodes as far as there are any; never keeps a pod from starting. */}}
{{- define "pointsman.spread" -}}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "pointsman.selector" $ | nindent 6 }}
{{- end }}
{{- end -}}

{{/*
gRPC probes against the health service; takes (list tls port server-name). Kubernetes' own have no client certificate, so
that under mutual TLS a command in the container asks, with the service's own.
*/}}
{{- define "pointsman.probes" -}}
{{- $tls := index . 0 -}}
{{- $port := index . 1 -}}
startupProbe:
  {{- include "pointsman.check" . | nindent 2 }}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 30
readinessProbe:
  {{- include "pointsman.check" . | nindent 2 }}
  # A command costs a process each time.
  periodSeconds: {{ ternary 10 5 $tls }}
  timeoutSeconds: 5
  failureThreshold: 2
livenessProbe:
  # Only that the process still accepts connections: a drain, or a ledger that is away, must not restart it.
  tcpSocket: {port: {{ $port }}}
  periodSeconds: 10
  failureThreshold: 6
{{- end -}}

{{- define "pointsman.check" -}}
{{- $port := index . 1 -}}
{{- if index . 0 -}}
exec:
  command: [python, -m, pointsman.runtime.probe, "127.0.0.1:{{ $port }}", --ca, /tls/ca.crt, --certificate, /tls/tls.crt, --key, /tls/tls.key, --server-name, {{ index . 2 }}]
{{- else -}}
grpc: {port: {{ $port }}}
{{- end -}}
{{- end -}}
