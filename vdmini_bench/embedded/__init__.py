"""How the embedded teacher was made: `python -m vdmini_bench.embedded train` trains it again."""
