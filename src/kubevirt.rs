//! Owns the slice of KubeVirt's API that we use: the few fields of `VirtualMachine` that are ever
//! deserialised, and the `start` subresource.
