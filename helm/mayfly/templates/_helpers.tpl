{{- define "mayfly.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 50 characters, so that the longest suffix still fits into a label. */}}
{{- define "mayfly.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "mayfly.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "mayfly.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "mayfly.selectorLabels" -}}
app.kubernetes.io/name: {{ include "mayfly.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "mayfly.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "mayfly.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "mayfly.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "mayfly.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Hooks run before the release's own objects are there, its service account among them: they bring their own. */}}
{{- define "mayfly.hookServiceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- printf "%s-hooks" (include "mayfly.fullname" .) -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "mayfly.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "mayfly.publicUrl" -}}
{{- required "publicUrl is required: the https URL by which callers know this broker" .Values.publicUrl -}}
{{- end -}}

{{/*
What every pod of the chart has: no token, no service variables (Kubernetes would set MAYFLY_PORT=tcp://… for a service
named mayfly, and the broker refuses settings that it does not know), and what Pod Security "restricted" asks for.
*/}}
{{- define "mayfly.podCommon" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- if not (kindIs "invalid" .Values.runAsUser) }}
  runAsUser: {{ int64 .Values.runAsUser }}
  {{- end }}
  {{- if not (kindIs "invalid" .Values.runAsGroup) }}
  runAsGroup: {{ int64 .Values.runAsGroup }}
  {{- /* Mounted secrets are readable by this group and nobody else. */}}
  fsGroup: {{ int64 .Values.runAsGroup }}
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "mayfly.containerCommon" -}}
image: {{ include "mayfly.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
resources:
  {{- toYaml .Values.resources | nindent 2 }}
{{- end -}}

{{- define "mayfly.envCommon" -}}
- name: NODE_ENV
  value: production
- name: MAYFLY_PUBLIC_URL
  value: {{ include "mayfly.publicUrl" . | quote }}
- name: MAYFLY_PROVIDERS
  value: {{ join "," .Values.providers | quote }}
- name: MAYFLY_LOG_LEVEL
  value: {{ .Values.logLevel | quote }}
{{- end -}}

{{/* One secret's key as one file of a projected volume. Takes {secret, key, path}. */}}
{{- define "mayfly.projectedKey" -}}
- secret:
    name: {{ .secret | quote }}
    items:
      - key: {{ .key | quote }}
        path: {{ .path | quote }}
{{- end -}}

{{- define "mayfly.runtimeSecret" -}}
{{- required "database.runtime.existingSecret is required: the Secret that holds the runtime login's URL" .Values.database.runtime.existingSecret -}}
{{- end -}}

{{/* True when the chart brings the catalog, one way or the other. */}}
{{- define "mayfly.catalog" -}}
{{- if and .Values.catalog.files .Values.catalog.existingConfigMap.name -}}
{{- fail "catalog.files and catalog.existingConfigMap: give one of them" -}}
{{- end -}}
{{- if or .Values.catalog.files .Values.catalog.existingConfigMap.name -}}true{{- end -}}
{{- end -}}

{{/* Takes [context, path]. The broker answers probes by the pod's address, whoever asks. */}}
{{- define "mayfly.probe" -}}
httpGet:
  path: {{ last . }}
  port: api
  scheme: {{ ternary "HTTPS" "HTTP" (not (empty (first .).Values.tls.existingSecret)) }}
{{- end -}}
