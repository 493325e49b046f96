"""A real one-node Kubernetes, built from source and run in namespaces of its own. Standard library only.

`settings` (where things are), `console` (what people see), `tools` (what the machine must have), `build` (binaries),
`process` (start, find again, end), `folder`, `controlplane` (certificates and command lines), `apiserver` (etcd and
kube-apiserver alone).
"""
