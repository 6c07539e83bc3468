"""What lies on the disk, from roster to bundle: coverage-guided. Run by tests/fuzz/run_fuzz.py."""

import sys

from guided import fuzz

if __name__ == "__main__":
    fuzz("state", sys.argv)
