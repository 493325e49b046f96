"""The mutating webhook: a web server, and what it has to know, kept at hand. Never imports Kopf."""
