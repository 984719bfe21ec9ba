{{/*
Names and labels. Every template below gets the context of one installation: that of the release, or that of one of its
tenants, whose values are laid over the release's (invoker.each).
*/}}

{{/* (list $ "template"): the template for the release itself and once more for each tenant. */}}
{{- define "invoker.each" -}}
{{- $root := index . 0 -}}
{{- $template := index . 1 -}}
{{- include "invoker.check" $root -}}
{{ include $template (dict "Values" $root.Values "Release" $root.Release "Chart" $root.Chart "Files" $root.Files "Capabilities" $root.Capabilities "Template" $root.Template "root" $root "tenant" "") }}
{{- range $tenant, $given := $root.Values.tenants }}
{{- $values := mergeOverwrite (deepCopy $root.Values) (deepCopy $given) }}
{{ include $template (dict "Values" $values "Release" $root.Release "Chart" $root.Chart "Files" $root.Files "Capabilities" $root.Capabilities "Template" $root.Template "root" $root "tenant" $tenant) }}
{{- end }}
{{- end }}

{{- define "invoker.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* What the names of the release's objects begin with. */}}
{{- define "invoker.releasename" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "invoker.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "invoker.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What the names of this installation's objects begin with. */}}
{{- define "invoker.fullname" -}}
{{- $base := include "invoker.releasename" . -}}
{{- if .tenant }}{{ printf "%s-%s" ($base | trunc 28 | trimSuffix "-") .tenant }}{{ else }}{{ $base }}{{ end }}
{{- end }}

{{/* Where the Jobs are. */}}
{{- define "invoker.jobnamespace" -}}
{{- default .Release.Namespace .Values.jobs.namespace }}
{{- end }}

{{/*
The installation's name in the namespace of its Jobs: what their names begin with, at most 31 characters. Releases of one name
in several namespaces may have their Jobs in the same one, so the release's namespace is part of it there.
*/}}
{{- define "invoker.kubeinstance" -}}
{{- $name := include "invoker.fullname" . -}}
{{- if not (regexMatch "^[a-z]" $name) }}{{ $name = printf "i-%s" $name }}{{ end -}}
{{- if or (ne (include "invoker.jobnamespace" .) .Release.Namespace) (gt (len $name) 31) }}
{{- $name = printf "%s-%s" ($name | trunc 22 | trimSuffix "-") (printf "%s/%s" .Release.Namespace $name | sha256sum | trunc 8) }}
{{- end }}
{{- $name }}
{{- end }}

{{/* What the installation's keys in Redis begin with: never the same for two, whoever shares a Redis with whom. */}}
{{- define "invoker.redisprefix" -}}
{{- if .Values.redis.prefix }}{{ if .tenant }}{{ .tenant }}/{{ end }}{{ .Values.redis.prefix }}
{{- else }}{{ .Release.Namespace }}/{{ include "invoker.fullname" . }}:{{ end }}
{{- end }}

{{/* (list $ "component"): the labels by which pods are found. */}}
{{- define "invoker.selector" -}}
{{- $ctx := index . 0 -}}
app.kubernetes.io/name: {{ include "invoker.name" $ctx }}
app.kubernetes.io/instance: {{ $ctx.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
invoker.dev/installation: {{ include "invoker.fullname" $ctx }}
{{- end }}

{{/* (list $ "component"): the labels of an object. */}}
{{- define "invoker.labels" -}}
{{- $ctx := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $ctx.Chart.Name $ctx.Chart.Version | replace "+" "_" }}
{{ include "invoker.selector" . }}
app.kubernetes.io/part-of: invoker
app.kubernetes.io/version: {{ $ctx.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $ctx.Release.Service }}
{{- with $ctx.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* (list $ "component"): the labels of a pod; none changes with the chart's version, which would replace pods that stay the same. */}}
{{- define "invoker.podlabels" -}}
{{- $ctx := index . 0 -}}
{{ include "invoker.selector" . }}
app.kubernetes.io/part-of: invoker
{{- with $ctx.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* (list $ "component" "name" "namespace" annotations): the metadata of an object; labels come last, so that more can follow. */}}
{{- define "invoker.metadata" -}}
{{- $ctx := index . 0 -}}
name: {{ index . 2 }}
namespace: {{ default $ctx.Release.Namespace (index . 3) }}
{{- with mergeOverwrite (dict) $ctx.Values.commonAnnotations (index . 4) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
labels:
  {{- include "invoker.labels" (list $ctx (index . 1)) | nindent 2 }}
{{- end }}

{{/* (list $ image): the name of an image; without tag that of this version. */}}
{{- define "invoker.image" -}}
{{- $ctx := index . 0 -}}{{- $image := index . 1 -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else }}{{ $image.repository }}:{{ default $ctx.Chart.AppVersion $image.tag }}{{ end }}
{{- end }}

{{- define "invoker.serviceaccount" -}}
{{- $ctx := index . 0 -}}{{- $component := index . 1 -}}
{{- $account := (index $ctx.Values $component).serviceAccount -}}
{{- if $account.create }}{{ default (printf "%s-%s" (include "invoker.fullname" $ctx) $component) $account.name }}
{{- else }}{{ default "default" $account.name }}{{ end }}
{{- end }}
