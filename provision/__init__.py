"""Onto a machine and back: builds, SSH, push, run, pull."""
