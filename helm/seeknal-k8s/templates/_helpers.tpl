{{/* The names, labels and parts that several templates have in common. */}}

{{- define "seeknal.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* 43: a StatefulSet's name may have 52 characters, and "-postgres" has nine. */}}
{{- define "seeknal.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 43 | trimSuffix "-" }}
{{- else if contains (include "seeknal.name" .) .Release.Name }}
{{- .Release.Name | trunc 43 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "seeknal.name" .) | trunc 43 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "seeknal.selector" -}}
app.kubernetes.io/name: {{ include "seeknal.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "seeknal.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "seeknal.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: seeknal-k8s
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "seeknal.annotations" -}}
{{- with .Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "seeknal.jobsNamespace" -}}
{{- .Values.jobs.namespace | default .Release.Namespace }}
{{- end }}

{{- define "seeknal.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "seeknal.serverImage" -}}
{{- if .Values.server.image.repository -}}
{{ .Values.server.image.repository }}:{{ required "server.image.tag is needed with server.image.repository" .Values.server.image.tag }}
{{- else -}}
{{ include "seeknal.image" . }}
{{- end }}
{{- end }}

{{- define "seeknal.workerAccount" -}}
{{- .Values.serviceAccounts.worker.name | default (printf "%s-worker" (include "seeknal.fullname" .)) }}
{{- end }}

{{- define "seeknal.claim" -}}
{{- .Values.store.existingClaim | default (printf "%s-store" (include "seeknal.fullname" .)) }}
{{- end }}

{{- define "seeknal.apiUrl" -}}
{{- if .Values.prefect.apiUrl -}}
{{ .Values.prefect.apiUrl }}
{{- else if .Values.server.enabled -}}
http://{{ include "seeknal.fullname" . }}-server.{{ .Release.Namespace }}.svc:4200/api
{{- else -}}
{{ fail "prefect.apiUrl is needed: the URL of your Prefect API, such as http://prefect:4200/api; or try things out with server.enabled=true" }}
{{- end }}
{{- end }}

{{/* The Secret with user:password: that of the bundled server, where that asks for one. */}}
{{- define "seeknal.authSecret" -}}
{{- if .Values.prefect.authString.secretName -}}
{{ .Values.prefect.authString.secretName }}
{{- else if .Values.server.enabled -}}
{{ .Values.server.authString.secretName }}
{{- end }}
{{- end }}

{{- define "seeknal.authKey" -}}
{{- if .Values.prefect.authString.secretName -}}
{{ .Values.prefect.authString.secretKey }}
{{- else -}}
{{ .Values.server.authString.secretKey }}
{{- end }}
{{- end }}

{{/* How a pod of ours speaks to the Prefect API. */}}
{{- define "seeknal.prefectEnv" -}}
- name: PREFECT_API_URL
  value: {{ include "seeknal.apiUrl" . | quote }}
- name: PREFECT_HOME
  value: /work/.prefect
- name: PREFECT_SERVER_ALLOW_EPHEMERAL_MODE
  value: "false"
{{- if .Values.prefect.apiKey.secretName }}
- name: PREFECT_API_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .Values.prefect.apiKey.secretName | quote }}
      key: {{ .Values.prefect.apiKey.secretKey | quote }}
{{- end }}
{{- if include "seeknal.authSecret" . }}
- name: PREFECT_API_AUTH_STRING
  valueFrom:
    secretKeyRef:
      name: {{ include "seeknal.authSecret" . | quote }}
      key: {{ include "seeknal.authKey" . | quote }}
{{- end }}
{{- range $name, $value := .Values.prefect.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "seeknal.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .user | default 10001 }}
runAsGroup: {{ .user | default 10001 }}
fsGroup: {{ .user | default 10001 }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "seeknal.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The disks of a pod whose root is read-only. */}}
{{- define "seeknal.mounts" -}}
- name: work
  mountPath: /work
- name: tmp
  mountPath: /tmp
{{- end }}

{{- define "seeknal.volumes" -}}
- name: work
  emptyDir:
    sizeLimit: 1Gi
- name: tmp
  emptyDir:
    sizeLimit: 1Gi
{{- end }}

{{- define "seeknal.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}
