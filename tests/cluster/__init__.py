"""A real one-node Kubernetes for the tests: control plane, kubelet and containerd, built from source.

`python -m tests.cluster build|up|down|status` for people and for CI, `tests.cluster.fixtures` for tests. `lookup` says
which cluster a test gets, `one_node` starts and stops this one, `components` has every setting of its programs.
"""
