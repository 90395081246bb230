module kmlab/labtrace

go 1.27.3

require (
	github.com/cilium/ebpf v0.22.0
	golang.org/x/sys v0.43.0
)
