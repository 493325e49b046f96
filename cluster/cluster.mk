# Targets of the one-node cluster; the Makefile of the repository includes this file.
CLUSTER := python3 cluster/cluster.py

.PHONY: cluster-build
cluster-build: ## build Kubernetes, etcd, CoreDNS and helm into the cache folder (once; minutes)
	$(CLUSTER) build

.PHONY: cluster-build-api
cluster-build-api: ## build only what `make test-api` needs
	$(CLUSTER) build --api
