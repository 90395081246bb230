"""The QEMU provider: no daemon, no root, and saved states."""
