"""People's votes between clips of a run: the page that takes them, the files they come in, the scores they give."""
