"""The Vagrant provider: the same machines for people who live in Vagrant, through python-vagrant and libvirt."""
