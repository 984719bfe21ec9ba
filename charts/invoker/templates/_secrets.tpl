{{/*
Secrets that the chart makes: drawn once, then found in the cluster and kept. What was drawn is remembered for the rest of the
rendering, so that a Secret and the checksums over it are of the same draw.
*/}}

{{/* (list $ "secret" "key" "kind"): the value that the Secret has, or will have. */}}
{{- define "invoker.kept" -}}
{{- $ctx := index . 0 -}}{{- $name := index . 1 -}}{{- $key := index . 2 -}}{{- $kind := index . 3 -}}
{{- $values := $ctx.root.Values -}}
{{- if not (hasKey $values "_kept") }}{{ $_ := set $values "_kept" dict }}{{ end -}}
{{- $store := get $values "_kept" -}}
{{- $id := printf "%s/%s" $name $key -}}
{{- if not (hasKey $store $id) }}
{{- $found := lookup "v1" "Secret" $ctx.Release.Namespace $name | default dict -}}
{{- $data := get $found "data" | default dict -}}
{{- if hasKey $data $key }}
{{- $_ := set $store $id (get $data $key | b64dec) }}
{{- else if eq $kind "apikey" }}
{{- $_ := set $store $id (printf "inv_%s_%s" (randAlpha 10 | lower) (randAlpha 52 | lower)) }}
{{- else }}
{{- /* A letter first: NATS reads a word of its configuration that begins with a digit as a number. */}}
{{- $_ := set $store $id (printf "k%s" (randAlphaNum 47)) }}
{{- end }}
{{- end }}
{{- get $store $id }}
{{- end }}

{{- define "invoker.runtokensecret" -}}
{{- default (printf "%s-run-token" (include "invoker.fullname" .)) .Values.runToken.existingSecret }}
{{- end }}

{{- define "invoker.keyssecret" -}}
{{- default (printf "%s-gateway-keys" (include "invoker.fullname" .)) .Values.gateway.keys.existingSecret }}
{{- end }}

{{/* Where the administrator's key is; empty when only its owner knows. */}}
{{- define "invoker.adminsecret" -}}
{{- if .Values.gateway.keys.existingSecret }}{{ .Values.gateway.keys.adminKeySecret }}
{{- else }}{{ include "invoker.fullname" . }}-admin-key{{ end }}
{{- end }}

{{/* The file of API keys that belongs to the administrator's key: only its hash. */}}
{{- define "invoker.keysfile" -}}
{{- $text := include "invoker.kept" (list . (include "invoker.adminsecret" .) "key" "apikey") -}}
{{- $parts := splitList "_" $text -}}
{{- if ne (len $parts) 3 }}{{ fail (printf "the Secret %s holds no API key (inv_ID_SECRET) under \"key\": delete it, and a new one is made" (include "invoker.adminsecret" .)) }}{{ end -}}
{{- $key := dict "id" (index $parts 1) "sha256" (index $parts 2 | sha256sum) "name" "admin" "scopes" (list (dict "actions" (list "admin"))) -}}
{{- dict "version" 1 "keys" (prepend .Values.gateway.keys.more $key) | toPrettyJson }}
{{- end }}

{{/* The Secret with the passwords of the evaluation server's users. */}}
{{- define "invoker.natssecret" -}}
{{ include "invoker.fullname" . }}-nats-users
{{- end }}

{{- define "invoker.natsroles" -}}
controller gateway publisher viewer
{{- end }}

{{/* (list $ "component"): what changes when a Secret of this chart does (or, when asked for, a function), so that the pods are replaced. */}}
{{- define "invoker.checksums" -}}
{{- $ctx := index . 0 -}}{{- $component := index . 1 -}}
{{- $parts := list -}}
{{- if and (eq $component "controller") (not $ctx.Values.runToken.existingSecret) }}
{{- $parts = append $parts (include "invoker.kept" (list $ctx (include "invoker.runtokensecret" $ctx) "key" "word")) }}
{{- end }}
{{- if $ctx.Values.nats.evaluation.enabled }}
{{- $parts = append $parts (include "invoker.kept" (list $ctx (include "invoker.natssecret" $ctx) (printf "%s-password" $component) "word")) }}
{{- end }}
{{- /* Secrets of yours, as they are when Helm can ask the cluster. API keys are not among them: gateways read those again. */}}
{{- $yours := list $ctx.Values.nats.tls.existingSecret (index $ctx.Values.nats $component).existingSecret -}}
{{- if eq $component "controller" }}{{ $yours = append $yours $ctx.Values.runToken.existingSecret }}{{ end -}}
{{- if eq $component "gateway" }}{{ $yours = append $yours $ctx.Values.redis.existingSecret }}{{ end -}}
{{- $found := list -}}
{{- range $name := compact $yours }}
{{- with lookup "v1" "Secret" $ctx.Release.Namespace $name }}{{ $found = append $found (get . "data" | toJson) }}{{ end }}
{{- end }}
{{- /* Whoever may read Deployments could try short passwords against a bare hash: a long random word is hashed along. */}}
{{- if and $found (eq $component "gateway") }}
{{- if $ctx.Values.runToken.existingSecret }}{{ with lookup "v1" "Secret" $ctx.Release.Namespace $ctx.Values.runToken.existingSecret }}{{ $found = append $found (get . "data" | toJson) }}{{ end }}
{{- else }}{{ $found = append $found (include "invoker.kept" (list $ctx (include "invoker.runtokensecret" $ctx) "key" "word")) }}{{ end -}}
{{- end }}
{{- $parts = concat $parts $found -}}
{{- with $parts }}
checksum/secrets: {{ join "\n" . | sha256sum }}
{{- end }}
{{- if and (eq $component "controller") $ctx.Values.catalog.restartOnChange }}
checksum/functions: {{ toJson $ctx.Values.catalog.functions | sha256sum }}
{{- end }}
{{- end }}

{{/*
The Secrets that no function may read, with commas: where Jobs share the release's namespace, all that the release uses, and
Helm's records of it, which hold every one of them.
*/}}
{{- define "invoker.forbiddensecrets" -}}
{{- if eq (include "invoker.jobnamespace" .) .Release.Namespace }}
{{- $names := list "sh.helm.release.v1.*" (include "invoker.runtokensecret" .) (include "invoker.keyssecret" .) (include "invoker.adminsecret" .) -}}
{{- $nats := .Values.nats -}}
{{- if $nats.evaluation.enabled }}{{ $names = append $names (include "invoker.natssecret" .) }}{{ end -}}
{{- $names = concat $names (list $nats.tls.existingSecret $nats.controller.existingSecret $nats.gateway.existingSecret .Values.redis.existingSecret) -}}
{{- range .Values.gateway.ingress.tls }}{{ $names = append $names .secretName }}{{ end -}}
{{- join "," (compact $names | uniq) }}
{{- end }}
{{- end }}

{{/* The Secrets of an installation that an uninstall leaves, for the notes. */}}
{{- define "invoker.keptsecrets" -}}
{{- if not .Values.runToken.existingSecret }}
  secret/{{ include "invoker.runtokensecret" . }}
{{- end }}
{{- if not .Values.gateway.keys.existingSecret }}
  secret/{{ include "invoker.adminsecret" . }}
{{- end }}
{{- if .Values.nats.evaluation.enabled }}
  secret/{{ include "invoker.natssecret" . }}
{{- end }}
{{- end }}
