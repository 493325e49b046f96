"""A real one-node Kubernetes for machines that have none: `python3 cluster/cluster.py --help`."""

from onenode.commands import main

if __name__ == "__main__":
    raise SystemExit(main())
