{{- define "sidestep.labels" -}}
app.kubernetes.io/name: sidestep
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}
{{- define "sidestep.selector" -}}
app.kubernetes.io/name: sidestep
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
