"""Commands of `vdmini-bench`, grouped by what they work on."""
