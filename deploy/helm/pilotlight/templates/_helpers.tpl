{{- define "pilotlight.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (default .Chart.Name .Values.nameOverride) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (default .Chart.Name .Values.nameOverride) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "pilotlight.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "pilotlight.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "pilotlight.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "pilotlight.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- define "pilotlight.serviceAccount" -}}
{{ default (include "pilotlight.fullname" .) .Values.serviceAccount.name }}
{{- end -}}

{{- define "pilotlight.authSecret" -}}
{{ default (printf "%s-auth" (include "pilotlight.fullname" .)) .Values.auth.existingSecret }}
{{- end -}}

{{- /* Settings as the variables that they are. Lists become commas; numbers come from YAML as floats, and 1000000 is not 1e+06. */ -}}
{{- define "pilotlight.settings" -}}
{{- range $name, $value := . }}
- name: PILOTLIGHT_{{ upper $name }}
  {{- if kindIs "slice" $value }}
  value: {{ join "," $value | quote }}
  {{- else if kindIs "float64" $value }}
  value: {{ printf "%.0f" $value | quote }}
  {{- else }}
  value: {{ toString $value | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "pilotlight.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- /* How the kubelet looks: by HTTP, which wants no password; where clients must show a certificate, which it has not, by connecting. */ -}}
{{- define "pilotlight.probe" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.tls.clientCa -}}
tcpSocket:
  port: http
{{- else -}}
httpGet:
  path: {{ index . 1 }}
  port: http
  scheme: {{ ternary "HTTP" "HTTPS" (empty $root.Values.tls.existingSecret) }}
{{- end -}}
{{- end -}}
