# Targets of the one-node cluster; the Makefile of the repository includes this file.
CLUSTER := python3 cluster/cluster.py

.PHONY: cluster-up
cluster-up: ## start the one-node cluster, or wait until the running one is ready (root)
	$(CLUSTER) up

.PHONY: cluster-down
cluster-down: ## end and remove the one-node cluster (root)
	$(CLUSTER) down

.PHONY: cluster-status
cluster-status: ## what of the cluster runs
	$(CLUSTER) status

.PHONY: cluster-build
cluster-build: ## build Kubernetes, etcd, CoreDNS and helm into the cache folder (once; minutes)
	$(CLUSTER) build

.PHONY: cluster-build-api
cluster-build-api: ## build only what `make test-api` needs
	$(CLUSTER) build --api

.PHONY: images
images: ## build the images of Pulsecache and its example (with Docker, or without)
	python3 cluster/images.py build sidecar operator shop redis postgres prometheus

.PHONY: lock
lock: ## write requirements/*.lock: versions and hashes of what goes into images and CI
	python3 cluster/images.py lock $(ARGS)

.PHONY: test-cluster
test-cluster: install cluster-build ## tests of the one-node cluster itself: starts, kills, leaves no trace (root)
	$(PY) -m pytest tests/cluster $(ARGS)
