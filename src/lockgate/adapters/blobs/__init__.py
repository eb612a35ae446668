"""Where bytes are kept: one module per kind of storage, all under the contract of `core.blobs.BlobStore`."""
