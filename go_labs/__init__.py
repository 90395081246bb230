"""The Go workloads, a folder each, with the description of the lab beside its code."""
