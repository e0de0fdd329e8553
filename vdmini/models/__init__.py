"""Video diffusion models: one file a family, and where they load from."""
