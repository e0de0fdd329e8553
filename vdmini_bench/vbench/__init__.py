"""VBench-T2V and VBench-I2V by the official package: it runs in an environment of its own and is spoken to by files."""
