"""Build the images of Pulsecache and its example, and load them into a cluster: `python3 cluster/images.py --help`."""

from onenode.image_commands import main

if __name__ == "__main__":
    raise SystemExit(main())
