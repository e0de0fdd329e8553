"""How the embedded teacher was made: `python -m vdmini_bench.embedded --minutes 90` trains it again."""
