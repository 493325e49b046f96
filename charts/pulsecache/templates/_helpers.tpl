{{/* Names: at most 63 characters with the longest suffix that is put behind them, and no dots: Services have them too. */}}
{{- define "pulsecache.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 43 | trimSuffix "-" }}
{{- end }}

{{- define "pulsecache.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 43 | trimSuffix "-" }}
{{- else if contains (include "pulsecache.name" .) .Release.Name }}
{{- .Release.Name | replace "." "-" | trunc 43 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "pulsecache.name" .) | replace "." "-" | trunc 43 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Webhooks are called in the order of their configurations' names: this one before those of meshes. */}}
{{- define "pulsecache.webhookConfiguration" -}}
a{{ include "pulsecache.fullname" . }}-injector
{{- end }}

{{- define "pulsecache.tlsSecret" -}}
{{ include "pulsecache.fullname" . }}-webhook-tls
{{- end }}

{{- define "pulsecache.lease" -}}
{{ include "pulsecache.fullname" . }}-controller
{{- end }}

{{/* The Secret by which sidecars in all namespaces get their access to Redis: a name of the interface, not of the release. */}}
{{- define "pulsecache.sidecarRedisSecret" -}}
pulsecache-redis
{{- end }}

{{/* The Secret in the release's namespace with the URLs for the operator; empty without Redis. */}}
{{- define "pulsecache.redisSecret" -}}
{{- if .Values.redis.enabled -}}
{{ .Values.redis.auth.existingSecret | default (printf "%s-redis-server" (include "pulsecache.fullname" .)) }}
{{- else if .Values.externalRedis.existingSecret -}}
{{ .Values.externalRedis.existingSecret }}
{{- else if .Values.externalRedis.operatorUrl -}}
{{ include "pulsecache.fullname" . }}-redis-external
{{- end }}
{{- end }}

{{/* Labels that never change: what Deployments and Services select by. Takes a dict of root and component. */}}
{{- define "pulsecache.selectorLabels" -}}
app.kubernetes.io/name: {{ include "pulsecache.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "pulsecache.labels" -}}
{{- with .root.Values.commonLabels }}
{{- toYaml . }}
{{ end -}}
{{ include "pulsecache.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: pulsecache
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* An image's full name. Takes a dict of root and image (repository, tag, digest). */}}
{{- define "pulsecache.image" -}}
{{- $repository := .image.repository -}}
{{- with .root.Values.image.registry -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository -}}
{{- end -}}
{{- if .image.digest -}}
{{ $repository }}@{{ .image.digest }}
{{- else -}}
{{ $repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* What Pod Security "restricted" asks of a pod, and of a container. */}}
{{- define "pulsecache.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ .user }}
fsGroup: {{ .user }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "pulsecache.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The settings that controller and injector share: see docs/architecture.md. */}}
{{- define "pulsecache.commonEnv" -}}
- name: PULSECACHE_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- {name: PULSECACHE_LOG_FORMAT, value: {{ .Values.operator.logFormat | quote }}}
- {name: PULSECACHE_HEALTH_LISTEN, value: "0.0.0.0:8080"}
- {name: PULSECACHE_TLS_SECRET, value: {{ include "pulsecache.tlsSecret" . | quote }}}
- {name: PULSECACHE_SIDECAR_IMAGE, value: {{ include "pulsecache.image" (dict "root" . "image" .Values.sidecar.image) | quote }}}
- {name: PULSECACHE_REDIS_SECRET, value: {{ include "pulsecache.sidecarRedisSecret" . | quote }}}
{{- end }}

{{- define "pulsecache.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Resources as JSON for the injector, which wants every quantity as text: `cpu: 1` is a number in YAML. */}}
{{- define "pulsecache.resourcesJson" -}}
{{- $resources := dict -}}
{{- range $kind, $quantities := . -}}
{{- $texts := dict -}}
{{- range $name, $quantity := $quantities -}}
{{- $_ := set $texts $name (toString $quantity) -}}
{{- end -}}
{{- $_ := set $resources $kind $texts -}}
{{- end -}}
{{- toJson $resources -}}
{{- end }}
