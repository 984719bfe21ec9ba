{{/* What no schema can say: values that contradict each other, refused in words. Called before anything else. */}}

{{- define "invoker.check" -}}
{{- include "invoker.check.nats" . -}}
{{- include "invoker.check.installation" (dict "Values" .Values "Release" .Release "tenant" "") -}}
{{- $root := . -}}
{{- $ctx := dict "Values" .Values "Release" .Release "Chart" .Chart "tenant" "" -}}
{{- $home := include "invoker.jobnamespace" $ctx -}}
{{- if and .Values.tenants (eq $home .Release.Namespace) }}{{ fail "jobs.namespace must name another namespace than the release's own when there are tenants: the Secrets of all tenants are there, and whoever may create Jobs in a namespace may read its Secrets" }}{{ end -}}
{{- $namespaces := dict $home "the release" -}}
{{- $owners := dict -}}
{{- include "invoker.check.own" (dict "ctx" $ctx "owners" $owners "who" "the release" "where" "") -}}
{{- range $tenant, $given := .Values.tenants }}
{{- $values := mergeOverwrite (deepCopy $root.Values) (deepCopy $given) -}}
{{- $own := dict "Values" $values "Release" $root.Release "Chart" $root.Chart "tenant" $tenant -}}
{{- $where := printf "tenants.%s: " $tenant -}}
{{- $namespace := dig "jobs" "namespace" "" $given -}}
{{- if not $namespace }}{{ fail (printf "%sjobs.namespace is missing: a tenant's Jobs are in a namespace of their own" $where) }}{{ end -}}
{{- if eq $namespace $root.Release.Namespace }}{{ fail (printf "%sjobs.namespace %s is the release's own: the Secrets of all tenants are there, and whoever may create Jobs in a namespace may read its Secrets" $where $namespace) }}{{ end -}}
{{- if hasKey $namespaces $namespace }}{{ fail (printf "%sjobs.namespace %s is that of %s already: whoever may create Jobs in a namespace may read its Secrets, so each tenant has its own" $where $namespace (get $namespaces $namespace)) }}{{ end -}}
{{- $_ := set $namespaces $namespace (printf "tenant %s" $tenant) -}}
{{- if and (not $root.Values.nats.evaluation.enabled) (eq (toString $values.settings.instance) (toString $root.Values.settings.instance)) (eq (toString $values.nats.controller.existingSecret) (toString $root.Values.nats.controller.existingSecret)) }}
{{- fail (printf "%sit would work on the release's own streams: give it a NATS account of its own (nats.controller.existingSecret, nats.gateway.existingSecret), or another settings.instance and settings.topicPrefix" $where) }}
{{- end -}}
{{- include "invoker.check.installation" (dict "Values" $values "Release" $root.Release "tenant" $tenant) -}}
{{- include "invoker.check.own" (dict "ctx" $own "owners" $owners "who" (printf "tenant %s" $tenant) "where" $where) -}}
{{- end }}
{{- end }}

{{/* (ctx owners who where): what only one installation may have: by it, it would be another one as well. */}}
{{- define "invoker.check.own" -}}
{{- $given := . -}}
{{- $values := .ctx.Values -}}
{{- $own := dict
      "controller.serviceAccount.name" (include "invoker.serviceaccount" (list .ctx "controller"))
      "runToken.existingSecret" $values.runToken.existingSecret
      "gateway.keys.existingSecret" $values.gateway.keys.existingSecret
      "gateway.keys.adminKeySecret" (ternary $values.gateway.keys.adminKeySecret "" (ne (toString $values.gateway.keys.existingSecret) "")) -}}
{{- /* An account of gateways that is there already has no rights here, so several may share it. */}}
{{- if $values.gateway.serviceAccount.create }}{{ $_ := set $own "gateway.serviceAccount.name" (include "invoker.serviceaccount" (list .ctx "gateway")) }}{{ end -}}
{{- if eq (include "invoker.serviceaccount" (list .ctx "controller")) (include "invoker.serviceaccount" (list .ctx "gateway")) }}
{{- fail (printf "%scontroller.serviceAccount.name and gateway.serviceAccount.name are one account, %s: gateways would have the rights of controllers" .where (include "invoker.serviceaccount" (list .ctx "gateway"))) }}
{{- end -}}
{{- range $path, $name := $own }}
{{- $id := printf "%s %s" (ternary "account" "secret" (contains "serviceAccount" $path)) $name -}}
{{- if and $name (hasKey $given.owners $id) (ne (get $given.owners $id) $given.who) }}
{{- fail (printf "%s%s %s is that of %s already: a tenant has one of its own" $given.where $path $name (get $given.owners $id)) }}
{{- end -}}
{{- if $name }}{{ $_ := set $given.owners $id $given.who }}{{ end -}}
{{- end }}
{{- end }}

{{- define "invoker.check.nats" -}}
{{- $nats := .Values.nats -}}
{{- $root := . -}}
{{- if $nats.url }}{{ range splitList "," (tpl $nats.url $root) }}{{ include "invoker.check.address" (trim .) }}{{ end }}{{ end -}}
{{- if and $nats.evaluation.enabled $nats.url }}{{ fail "nats.url names a NATS of yours and nats.evaluation.enabled starts another one: set one of them (nats.evaluation.enabled=false)" }}{{ end -}}
{{- if not (or $nats.evaluation.enabled $nats.url) }}{{ fail "there is no NATS: set nats.url, or nats.evaluation.enabled=true for a single server to try things out" }}{{ end -}}
{{- if and $nats.evaluation.enabled $nats.tls.existingSecret }}{{ fail "nats.tls is for the NATS of nats.url: the evaluation server has no TLS" }}{{ end -}}
{{- if and $nats.tls.clientCertificate (not $nats.tls.existingSecret) }}{{ fail "nats.tls.clientCertificate needs nats.tls.existingSecret, a Secret with tls.crt and tls.key" }}{{ end -}}
{{- end }}

{{/* (address): one of nats.url, after its template expressions. */}}
{{- define "invoker.check.address" -}}
{{- if contains "@" . }}{{ fail "nats.url holds a user or a password, which everybody would read who may see Deployments: put them into a Secret and name it in nats.controller.existingSecret and nats.gateway.existingSecret" }}{{ end -}}
{{- if not (regexMatch "^(nats|tls|ws|wss)://[^/\\s]+$" .) }}{{ fail (printf "nats.url: %q is no address such as nats://nats.example.org:4222 or tls://…" .) }}{{ end -}}
{{- end }}

{{- define "invoker.check.installation" -}}
{{- $values := .Values -}}
{{- $where := "" -}}
{{- if .tenant }}{{ $where = printf "tenants.%s: " .tenant }}{{ end -}}
{{- range $component := list "controller" "gateway" }}
{{- $given := index $values.nats $component -}}
{{- if and $values.nats.evaluation.enabled (ne $given.method "none") }}{{ fail (printf "%snats.%s.method is for the NATS of nats.url: the evaluation server has users of its own" $where $component) }}{{ end -}}
{{- if and (ne $given.method "none") (not $given.existingSecret) }}{{ fail (printf "%snats.%s.method is %s, so nats.%s.existingSecret must name the Secret" $where $component $given.method $component) }}{{ end -}}
{{- if and (eq $given.method "none") $given.existingSecret }}{{ fail (printf "%snats.%s.existingSecret is set, so nats.%s.method must say what is in it: password, token, nkey or creds" $where $component $component) }}{{ end -}}
{{- $grace := int (index $values $component).terminationGracePeriodSeconds -}}{{- $pause := int (index $values $component).preStopSeconds -}}
{{- if lt $grace (add $pause 10 | int) }}{{ fail (printf "%s%s.terminationGracePeriodSeconds is %d: a drain needs ten seconds after the %d of preStopSeconds" $where $component $grace $pause) }}{{ end -}}
{{- $budget := (index $values $component).podDisruptionBudget -}}
{{- if and $budget.enabled (ne (toString $budget.minAvailable) "") (ne (toString $budget.maxUnavailable) "") }}{{ fail (printf "%s%s.podDisruptionBudget: minAvailable and maxUnavailable are both set; keep one" $where $component) }}{{ end -}}
{{- if and $budget.enabled (eq (toString $budget.minAvailable) "") (eq (toString $budget.maxUnavailable) "") }}{{ fail (printf "%s%s.podDisruptionBudget: set minAvailable or maxUnavailable" $where $component) }}{{ end -}}
{{- end -}}
{{- if eq (toString $values.settings.instance) (index (splitList "." (toString $values.settings.topicPrefix)) 0) }}{{ fail (printf "%ssettings.topicPrefix %s may not begin with settings.instance, %s" $where $values.settings.topicPrefix $values.settings.instance) }}{{ end -}}
{{- $pulse := $values.controller.settings | default dict -}}
{{- $wait := get $pulse "ackWaitSeconds" | default 10 | float64 -}}{{- $beat := get $pulse "heartbeatSeconds" | default 3 | float64 -}}
{{- if gt (mulf 2 $beat) $wait }}{{ fail (printf "%scontroller.settings.heartbeatSeconds (%v) must be at most half of ackWaitSeconds (%v)" $where $beat $wait) }}{{ end -}}
{{- range $path, $given := dict "podSecurityContext" $values.podSecurityContext "securityContext" $values.securityContext }}
{{- if eq (toString (get $given "runAsUser")) "0" }}{{ fail (printf "%s%s.runAsUser is 0: no pod of this chart runs as root" $where $path) }}{{ end -}}
{{- range $field := list "privileged" "allowPrivilegeEscalation" }}
{{- if get $given $field }}{{ fail (printf "%s%s.%s: no pod of this chart has privileges" $where $path $field) }}{{ end -}}
{{- end }}
{{- end -}}
{{- $account := $values.controller.serviceAccount -}}
{{- if and (not $account.create) (has $account.name (list "" "default")) }}{{ fail (printf "%scontroller.serviceAccount.name must name an account of its own when create is false: with the account default, every pod of the namespace could make Jobs" $where) }}{{ end -}}
{{- if and $values.catalog.volume (or $values.catalog.functions $values.catalog.configMaps) }}{{ fail (printf "%scatalog.volume is the whole catalog: leave catalog.functions and catalog.configMaps empty" $where) }}{{ end -}}
{{- if and .Values.test.enabled (not .Values.test.topic) (not .Values.catalog.volume) (hasKey $values.catalog.functions "chart-test") }}{{ fail (printf "%scatalog.functions.chart-test: the function of `helm test` has that name: take another one, or name a topic of yours in test.topic" $where) }}{{ end -}}
{{- range $function, $files := $values.catalog.functions }}
{{- $keys := dict -}}
{{- range $file, $text := $files }}
{{- $key := $file | replace "/" "." -}}
{{- if hasKey $keys $key }}{{ fail (printf "%scatalog.functions.%s: %s and %s would have one key in the ConfigMap, %s.%s: rename one" $where $function (get $keys $key) $file $function $key) }}{{ end -}}
{{- $_ := set $keys $key $file -}}
{{- end }}
{{- end -}}
{{- $volumes := dict -}}
{{- range $values.catalog.configMaps }}
{{- $volume := include "invoker.catalogvolume" .name -}}
{{- if hasKey $volumes $volume }}{{ fail (printf "%scatalog.configMaps: %s and %s would have one volume, %s: rename one, or put both into one ConfigMap" $where (get $volumes $volume) .name $volume) }}{{ end -}}
{{- $_ := set $volumes $volume .name -}}
{{- end -}}
{{- if and $values.gateway.keys.existingSecret $values.gateway.keys.more }}{{ fail (printf "%sgateway.keys.more: with gateway.keys.existingSecret all keys are in that Secret" $where) }}{{ end -}}
{{- if and $values.redis.enabled (not $values.redis.existingSecret) }}{{ fail (printf "%sredis.enabled needs redis.existingSecret, a Secret whose key url is the address" $where) }}{{ end -}}
{{- if and $values.gateway.ingress.enabled (not $values.gateway.ingress.hosts) }}{{ fail (printf "%sgateway.ingress.enabled needs gateway.ingress.hosts" $where) }}{{ end -}}
{{- if and $values.gateway.autoscaling.enabled (gt (int $values.gateway.autoscaling.minReplicas) (int $values.gateway.autoscaling.maxReplicas)) }}{{ fail (printf "%sgateway.autoscaling: minReplicas %d is above maxReplicas %d" $where (int $values.gateway.autoscaling.minReplicas) (int $values.gateway.autoscaling.maxReplicas)) }}{{ end -}}
{{- if and $values.gateway.jwt.existingConfigMap (not (and $values.gateway.jwt.issuer $values.gateway.jwt.audience)) }}{{ fail (printf "%sgateway.jwt needs issuer and audience: tokens made for others would be taken otherwise" $where) }}{{ end -}}
{{- end }}
