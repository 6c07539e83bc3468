"""The parts of `ctfed prepare`: settings, cases, cached steps, the pool of processes, outputs."""
