"""The Vagrant provider: the same machines for people who live in Vagrant, through python-vagrant and libvirt."""

import logging

# python-vagrant warns while it is imported where Vagrant is not installed; most who import it never call it.
logging.getLogger("vagrant").addHandler(logging.NullHandler())
