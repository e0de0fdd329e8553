"""A run as one HTML file that opens from disk: tables, pictures and clips; nothing is fetched."""
