{{/* What the pods of controller and gateway have in common: environment, files, security, placement. */}}

{{/* (value): a setting as its environment variable has it: lists with commas, whole numbers without an exponent. */}}
{{- define "invoker.settingtext" -}}
{{- if kindIs "slice" . }}{{ join "," . }}
{{- else if and (kindIs "float64" .) (eq . (floor .)) }}{{ int64 . }}
{{- else }}{{ . }}{{ end }}
{{- end }}

{{/* (settings): environment variables of the settings that are given; null leaves the program's own default. */}}
{{- define "invoker.settings" -}}
{{- range $name, $value := . }}
{{- if not (kindIs "invalid" $value) }}
- name: INVOKER_{{ snakecase $name | upper }}
  value: {{ include "invoker.settingtext" $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* (list $ "component"): where NATS is, and who the component is there. */}}
{{- define "invoker.natsenv" -}}
{{- $ctx := index . 0 -}}{{- $component := index . 1 -}}
{{- $nats := $ctx.Values.nats -}}{{- $given := index $nats $component -}}
- name: INVOKER_NATS_URL
{{- if $nats.evaluation.enabled }}
  value: nats://{{ include "invoker.releasename" $ctx }}-nats.{{ $ctx.Release.Namespace }}.svc:4222
- name: INVOKER_NATS_USER
  value: {{ if $ctx.tenant }}{{ $ctx.tenant }}-{{ end }}{{ $component }}
- name: INVOKER_NATS_PASSWORD_FILE
  value: /etc/invoker/nats/password
- name: INVOKER_NATS_INBOX_PREFIX
  value: _INBOX.{{ $component }}
{{- else }}
  value: {{ tpl $nats.url $ctx.root | quote }}
{{- if eq $given.method "password" }}
- name: INVOKER_NATS_USER_FILE
  value: /etc/invoker/nats/user
- name: INVOKER_NATS_PASSWORD_FILE
  value: /etc/invoker/nats/password
{{- else if eq $given.method "token" }}
- name: INVOKER_NATS_TOKEN_FILE
  value: /etc/invoker/nats/token
{{- else if eq $given.method "nkey" }}
- name: INVOKER_NATS_NKEY
  value: /etc/invoker/nats/nkey
{{- else if eq $given.method "creds" }}
- name: INVOKER_NATS_CREDS
  value: /etc/invoker/nats/creds
{{- end }}
{{- with $given.inboxPrefix }}
- name: INVOKER_NATS_INBOX_PREFIX
  value: {{ . | quote }}
{{- end }}
{{- if $nats.tls.existingSecret }}
{{- if $nats.tls.ca }}
- name: INVOKER_NATS_CA
  value: /etc/invoker/nats-tls/ca.crt
{{- end }}
{{- if $nats.tls.clientCertificate }}
- name: INVOKER_NATS_CERT
  value: /etc/invoker/nats-tls/tls.crt
- name: INVOKER_NATS_KEY
  value: /etc/invoker/nats-tls/tls.key
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "invoker.natsvolumes" -}}
{{- $ctx := index . 0 -}}{{- $component := index . 1 -}}
{{- $nats := $ctx.Values.nats -}}{{- $given := index $nats $component -}}
{{- if $nats.evaluation.enabled }}
- name: nats
  secret:
    secretName: {{ include "invoker.natssecret" $ctx }}
    defaultMode: 0440
    items: [{key: {{ $component }}-password, path: password}]
{{- else if ne $given.method "none" }}
- name: nats
  secret:
    secretName: {{ $given.existingSecret }}
    defaultMode: 0440
    items:
      - {key: {{ $given.method }}, path: {{ $given.method }}}
{{- if eq $given.method "password" }}
      - {key: user, path: user}
{{- end }}
{{- end }}
{{- if $nats.tls.existingSecret }}
- name: nats-tls
  secret: {secretName: {{ $nats.tls.existingSecret }}, defaultMode: 0440}
{{- end }}
- name: tmp
  emptyDir: {}
{{- end }}

{{- define "invoker.natsmounts" -}}
{{- $ctx := index . 0 -}}{{- $component := index . 1 -}}
{{- $nats := $ctx.Values.nats -}}
{{- if or $nats.evaluation.enabled (ne (index $nats $component).method "none") }}
- {name: nats, mountPath: /etc/invoker/nats, readOnly: true}
{{- end }}
{{- if $nats.tls.existingSecret }}
- {name: nats-tls, mountPath: /etc/invoker/nats-tls, readOnly: true}
{{- end }}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{/* (list $ "component"): annotations and labels of a pod. */}}
{{- define "invoker.podmetadata" -}}
{{- $ctx := index . 0 -}}{{- $component := index . 1 -}}
{{- $given := index $ctx.Values $component -}}
{{- $annotations := mergeOverwrite (include "invoker.checksums" . | fromYaml) $ctx.Values.commonAnnotations $given.podAnnotations -}}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
labels:
  {{- mergeOverwrite (include "invoker.podlabels" . | fromYaml) $given.podLabels | toYaml | nindent 2 }}
{{- end }}

{{/* (list $ "component"): the part of a pod's spec that is about neither its containers nor its volumes. */}}
{{- define "invoker.podspec" -}}
{{- $ctx := index . 0 -}}{{- $component := index . 1 -}}
{{- $given := index $ctx.Values $component -}}
enableServiceLinks: false # a Service named invoker-gateway would set INVOKER_GATEWAY_PORT
terminationGracePeriodSeconds: {{ $given.terminationGracePeriodSeconds }}
securityContext:
  {{- toYaml $ctx.Values.podSecurityContext | nindent 2 }}
{{- with $ctx.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $given.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $given.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $given.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $given.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $given.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  {{- $own := dict "labelSelector" (dict "matchLabels" (include "invoker.selector" (list $ctx $component) | fromYaml)) }}
  - {{- mergeOverwrite $own . | toYaml | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* (list $ "component" "port"): probes, resources and security of a container. */}}
{{- define "invoker.container" -}}
{{- $ctx := index . 0 -}}{{- $given := index $ctx.Values (index . 1) -}}{{- $port := index . 2 -}}
{{/* Alive from its first second, also while NATS is away: it waits, not ready, with the reason at /readyz. */ -}}
startupProbe:
  httpGet: {path: /livez, port: {{ $port }}}
  periodSeconds: 1
  failureThreshold: 120
livenessProbe:
  httpGet: {path: /livez, port: {{ $port }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: {{ $port }}}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 3
lifecycle:
  preStop:
    sleep: {seconds: {{ $given.preStopSeconds }}} # until its address is taken out of the Services
resources:
  {{- toYaml $given.resources | nindent 2 }}
securityContext:
  {{- toYaml $ctx.Values.securityContext | nindent 2 }}
{{- end }}
