"""Takes symbol tables out of compiled modules. usage: python strip_libraries.py FOLDER

`strip` moves what patchelf has laid out (most libraries in folders *.libs, and some modules), and such a file no longer
loads: each result is checked, and one that is not laid out in whole pages, or no smaller, is thrown away.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

LOAD = 1  # PT_LOAD


def loadable(content: bytes) -> bool:
    """Whether every segment that is loaded lies in the file, at an offset that can be mapped to its address."""
    start, entry, count = *struct.unpack_from("<Q", content, 32), *struct.unpack_from("<HH", content, 54)
    for number in range(count):
        kind, _, offset, address, _, size, _, page = struct.unpack_from("<IIQQQQQQ", content, start + number * entry)
        if kind == LOAD and ((offset - address) % max(page, 1) or offset + size > len(content)):
            return False
    return True


def main(folder: Path) -> None:
    """Strip every 64-bit ELF library below a folder that stays loadable; says how much that saved."""
    saved = kept = 0
    for path in sorted(folder.rglob("*.so*")):
        if path.is_symlink() or not path.is_file() or path.parent.name.endswith(".libs"):
            continue
        with path.open("rb") as file:
            if file.read(5) != b"\x7fELF\x02":
                continue
        smaller = path.with_name(path.name + ".stripped")
        subprocess.run(["strip", "--strip-unneeded", "-o", str(smaller), str(path)], check=True)
        gain = path.stat().st_size - smaller.stat().st_size
        if gain > 0 and loadable(smaller.read_bytes()):
            os.replace(smaller, path)
            saved += gain
        else:
            smaller.unlink()
            kept += 1
    print(f"strip: {saved / 1e6:.0f} MB saved, {kept} files left as they were")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
