"""Boxes for Vagrant: the lab's own artefacts as one disk that boots by itself."""
