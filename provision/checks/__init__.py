"""What ``invoke doctor`` looks at: small functions, each from a host to findings. They change nothing."""
