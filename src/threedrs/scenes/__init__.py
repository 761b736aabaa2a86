"""The scene store: one zarr group a scene, all that later stages read of a scan."""
