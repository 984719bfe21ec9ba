// Programs of the images that tests run. The standard library only.
module cluster/programs

go 1.26.0
