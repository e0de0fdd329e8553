"""Around a program: its processes, its terminal, the files it writes, the machine it runs on."""
