"""``python -m seeknal_k8s``: the command line where its scripts are not on the PATH."""

from seeknal_k8s.cli import main

main()
