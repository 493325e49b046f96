{{/* redis.conf. */}}
{{- define "pulsecache.redisConf" -}}
port 6379
bind * -::*
# Nobody gets in without a password: the default user is off.
protected-mode no
aclfile /etc/pulsecache-redis-users/users.acl
dir /data
maxmemory {{ .Values.redis.maxmemory }}
maxmemory-policy {{ .Values.redis.maxmemoryPolicy }}
save ""
{{- if .Values.redis.persistence.enabled }}
appendonly yes
appendfsync everysec
{{- else }}
appendonly no
{{- end }}
tcp-keepalive 30
loglevel notice
{{- end }}

{{/*
users.acl: two users, each with the commands it needs, one by one (categories hold more than one thinks: "scripting"
loads functions, "read" lists all keys, "connection" lists all clients), and only for our own keys. What scripts do is
checked against the same lists. Names must be known to Redis 7.0, which refuses the whole file otherwise.
Takes a dict of the two passwords.
*/}}
{{- define "pulsecache.redisAcl" -}}
{{- $common := "+ping +hello +select +client|setname +multi +exec +discard +wait +time +eval +evalsha +eval_ro +evalsha_ro +script|load +script|exists +exists +del +unlink +expire +pexpire +persist +ttl +pttl +get +set +hget +hmget +hset +hsetnx +hdel +hgetall +hincrby +hlen +hexists +hscan +xadd +xdel +xread +xrange +xrevrange +xtrim +xlen +xinfo|stream" -}}
user default off sanitize-payload resetchannels -@all
user operator on sanitize-payload #{{ .operator | sha256sum }} ~pc:* resetchannels -@all {{ $common }} +scan +info
user sidecar on sanitize-payload #{{ .sidecar | sha256sum }} ~pc:* resetchannels -@all {{ $common }}
{{- end }}
