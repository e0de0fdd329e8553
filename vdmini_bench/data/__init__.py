"""Videos, pictures, captions and data sets: found, chosen and read."""
