"""How Go and the kernel are observed: probe plans, BPF programs, the loader, BCC and bpftrace tools."""
