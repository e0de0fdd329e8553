"""Where clips come from: UCF101 on disk, its drawn stand-in, and the one reader of video files."""
