"""A real one-node Kubernetes, built from source and run in namespaces of its own. Standard library only.

Ground: `settings` (where things are), `console` (what people see), `tools` (what the machine must have), `command` (run
a program), `process` (start one, find it again, end it), `folder`, `locking`. The cluster: `build` (binaries),
`controlplane` and `node` (certificates, configuration, command lines), `supervisor` (the node's first process),
`cgroup`, `network`, `addons`, `lifecycle` (up, down, status), `apiserver` (etcd and kube-apiserver alone). Images:
`archive` (layers, docker-archives), `debian` and `wheels` (what is in them), `images` (which there are),
`system_images`, `loading` and `containerd_import`. Entry points: `commands`, `image_commands`.
"""
