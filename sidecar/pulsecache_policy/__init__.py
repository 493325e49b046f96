"""The policy language: what a CachePolicy says, as values. Pure, and shared by operator, sidecar and CLI."""
