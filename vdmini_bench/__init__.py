"""The harness: prove what shrinking a video diffusion model cost and what it bought."""
