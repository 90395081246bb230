module kmlab

go 1.21
