"""The controller: compiles policies, rolls workloads, keeps certificates and datasets, writes status."""
