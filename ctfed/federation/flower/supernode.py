"""``python -m ctfed.federation.flower.supernode``: Flower's SuperNode with ctfed's rests between two messages.

Takes the arguments of ``flower-supernode``.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run Flower's SuperNode until it is stopped."""
    from flwr.supernode.cli import flower_supernode

    from ctfed.federation.flower.pace import quicken_object_pulls, quicken_supernode

    quicken_object_pulls()
    quicken_supernode()
    sys.argv[0] = "flower-supernode"  # Flower looks at its own name
    flower_supernode()


if __name__ == "__main__":
    main()
