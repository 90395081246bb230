"""A machine: which kernel, which image, how it starts, resets and stops."""
