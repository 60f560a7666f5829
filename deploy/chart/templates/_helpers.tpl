{{/* Names of this installation. With release "kubevirt-wol" they are those that the program expects. */}}
{{- define "kubevirt-wol.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "kubevirt-wol.manager" -}}
{{ include "kubevirt-wol.fullname" . }}-controller-manager
{{- end }}

{{- define "kubevirt-wol.agent" -}}
{{ include "kubevirt-wol.fullname" . }}-agent
{{- end }}

{{- define "kubevirt-wol.service" -}}
{{ include "kubevirt-wol.fullname" . }}-grpc
{{- end }}

{{- define "kubevirt-wol.managerAccount" -}}
{{- with .Values.manager.serviceAccount }}
{{- if .create }}{{ default (include "kubevirt-wol.manager" $) .name }}{{ else }}{{ default "default" .name }}{{ end }}
{{- end }}
{{- end }}

{{- define "kubevirt-wol.agentAccount" -}}
{{- with .Values.agent.serviceAccount }}
{{- if .create }}{{ default (include "kubevirt-wol.agent" $) .name }}{{ else }}{{ default "default" .name }}{{ end }}
{{- end }}
{{- end }}

{{/* The Secrets with SecureOn passwords, with commas. */}}
{{- define "kubevirt-wol.secureOn" -}}
{{- default (list (printf "%s-secureon" (include "kubevirt-wol.fullname" .))) .Values.secureOn.secrets | join "," }}
{{- end }}

{{- define "kubevirt-wol.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{/* Labels of an object of a component: (list . COMPONENT); of all of them where it is empty. */}}
{{- define "kubevirt-wol.labels" -}}
{{- $ := index . 0 }}
{{- $component := index . 1 -}}
app.kubernetes.io/name: {{ $.Values.nameOverride | default $.Chart.Name }}
app.kubernetes.io/instance: {{ $.Release.Name }}
{{- if $component }}
app.kubernetes.io/component: {{ $component }}
{{- end }}
app.kubernetes.io/part-of: kubevirt-wol
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- with $.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of pods, and of what makes them: as above, and what selectors ask for. */}}
{{- define "kubevirt-wol.podLabels" -}}
{{- $ := index . 0 }}
{{- $component := index . 1 -}}
app: wol-{{ $component }}
app.kubernetes.io/name: {{ $.Values.nameOverride | default $.Chart.Name }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ $component }}
app.kubernetes.io/part-of: kubevirt-wol
{{- with $.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A variable, where it is not what the program has by default: (list NAME VALUE DEFAULT). */}}
{{- define "kubevirt-wol.unless" -}}
{{- if ne (index . 1) (index . 2) }}
- name: {{ index . 0 }}
  value: {{ index . 1 | quote }}
{{- end }}
{{- end }}

{{/* What managers, and who looks at an installation, call its objects. */}}
{{- define "kubevirt-wol.names" -}}
{{- $name := include "kubevirt-wol.fullname" . }}
{{- include "kubevirt-wol.unless" (list "WOL_AGENT_DAEMON_SET" (include "kubevirt-wol.agent" .) "kubevirt-wol-agent") }}
{{- include "kubevirt-wol.unless" (list "WOL_SERVICE" (include "kubevirt-wol.service" .) "kubevirt-wol-grpc") }}
{{- include "kubevirt-wol.unless" (list "WOL_CA_SECRET" (printf "%s-ca" $name) "kubevirt-wol-ca") }}
{{- include "kubevirt-wol.unless" (list "WOL_CA_BUNDLE" (printf "%s-ca-bundle" $name) "kubevirt-wol-ca-bundle") }}
{{- include "kubevirt-wol.unless" (list "WOL_SECURE_ON_SECRETS" (include "kubevirt-wol.secureOn" .) "kubevirt-wol-secureon") }}
{{- end }}

{{/* The managers' variables that differ from what they have by default. */}}
{{- define "kubevirt-wol.managerEnv" -}}
{{- include "kubevirt-wol.names" . }}
{{- include "kubevirt-wol.unless" (list "WOL_AGENT_SERVICE_ACCOUNT" (include "kubevirt-wol.agentAccount" .) "kubevirt-wol-agent") }}
{{- include "kubevirt-wol.unless" (list "WOL_CLUSTER_DOMAIN" .Values.clusterDomain "cluster.local") }}
{{- include "kubevirt-wol.unless" (list "WOL_AGENT_AUTH" .Values.tls.agentAuth "token") }}
{{- if ne .Values.tls.mode "own-ca" }}
- name: WOL_TLS_DIR
  value: /var/run/secrets/kubevirt-wol/tls
# For `kubevirt-wol check`, by kubectl exec: the managers keep no authority that it could look for.
- name: WOL_CA_FILE
  value: /var/run/secrets/kubevirt-wol/{{ ternary "ca" "tls" (not (empty .Values.tls.caConfigMap)) }}/ca.crt
{{- end }}
{{- with .Values.manager.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The agents' variables that differ from what they have by default. */}}
{{- define "kubevirt-wol.agentEnv" -}}
{{- $manager := printf "%s.%s.svc:9090" (include "kubevirt-wol.service" .) .Release.Namespace }}
{{- include "kubevirt-wol.unless" (list "WOL_MANAGER" $manager "kubevirt-wol-grpc.kubevirt-wol-system.svc:9090") }}
{{- if eq .Values.tls.agentAuth "certificate" }}
- name: WOL_CLIENT_TLS_DIR
  value: /var/run/secrets/kubevirt-wol/tls
{{- end }}
{{- if .Values.metrics.agents.enabled }}
- name: WOL_ADMIN_BIND
  value: "[::]:{{ .Values.metrics.agents.port }}"
{{- end }}
{{- with .Values.agent.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The Secret with the managers' certificate, where it is not their own. */}}
{{- define "kubevirt-wol.managerTls" -}}
{{- if eq .Values.tls.mode "cert-manager" }}{{ include "kubevirt-wol.fullname" . }}-manager-tls{{ else }}{{ .Values.tls.existingSecret }}{{ end }}
{{- end }}

{{/* The Secret with the agents' certificate. */}}
{{- define "kubevirt-wol.agentTls" -}}
{{- if eq .Values.tls.mode "cert-manager" }}{{ include "kubevirt-wol.fullname" . }}-agent-tls{{ else }}{{ .Values.tls.agentSecret }}{{ end }}
{{- end }}

{{/* The rules of a role of files/rbac.yaml, which `just manifests` makes of the code, with the names of
     this installation: (list . KIND). */}}
{{- define "kubevirt-wol.rules" -}}
{{- $ := index . 0 }}
{{- $kind := index . 1 }}
{{- $name := include "kubevirt-wol.fullname" $ }}
{{- $names := dict
  "kubevirt-wol-agent" (list (include "kubevirt-wol.agent" $))
  "kubevirt-wol-ca" (list (printf "%s-ca" $name))
  "kubevirt-wol-ca-bundle" (list (printf "%s-ca-bundle" $name))
  "kubevirt-wol-secureon" (splitList "," (include "kubevirt-wol.secureOn" $)) }}
{{- $rules := list }}
{{- range splitList "\n---\n" ($.Files.Get "files/rbac.yaml") }}
{{- $document := fromYaml . }}
{{- if eq $document.kind $kind }}
{{- range $document.rules }}
{{- $rule := . }}
{{- with .resourceNames }}
{{- $named := list }}
{{- range . }}
{{- $named = concat $named (get $names . | default (list .)) }}
{{- end }}
{{- $rule = set $rule "resourceNames" $named }}
{{- end }}
{{- $rules = append $rules $rule }}
{{- end }}
{{- end }}
{{- end }}
{{- toYaml $rules }}
{{- end }}
