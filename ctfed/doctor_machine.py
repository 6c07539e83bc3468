"""What `ctfed doctor` checks of the machine: user, versions, room, memory, GPU."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from ctfed.doctor import Finding, Subject, look, ok, skipped, wrong

GIB = 2**30
LEAST_TEMPORARY = 0.05 * GIB  # Flower's files and logs; segmentation needs more, see LEAST_FOR_SCANS
LEAST_FOR_SCANS = 2 * GIB
LEAST_MEMORY = 1 * GIB
_PINNED = re.compile(r"^([A-Za-z0-9_.-]+)\s*==\s*([^\s;]+)$")
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def user(subject: Subject) -> Iterator[Finding]:
    """Who runs this, and in which groups."""
    uid, gid = os.getuid(), os.getgid()
    groups = ", ".join(map(str, sorted(set(os.getgroups())))) or "none"
    who = f"uid {uid}, gid {gid}, groups {groups}"
    if uid == 0:
        yield look("user", f"{who}: root; start with --user 1000:1000, or set HOST_UID and HOST_GID")
        return
    yield ok("user", who)


def versions(subject: Subject) -> Iterator[Finding]:
    """Whether the packages that ctfed pins have exactly these versions."""
    pins = [match for text in requires("ctfed") or [] if (match := _PINNED.match(text))]
    for name, expected in (match.groups() for match in pins):
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "nothing"
        if found != expected:
            yield wrong("versions", f"{name}: found {found}, expected {expected}; use the image of this release")
            return
    yield ok("versions", f"ctfed {version('ctfed')}, " + ", ".join(f"{match[1]} {match[2]}" for match in pins))


def temporary(subject: Subject) -> Iterator[Finding]:
    """Whether there is a folder for what is of no value, with room."""
    folder = Path(tempfile.gettempdir())
    least = LEAST_TEMPORARY if subject.site.prepare is None else LEAST_FOR_SCANS
    yield writable("temporary", folder, least)
    if subject.state is not None:
        yield writable("temporary", subject.state, LEAST_TEMPORARY)


def writable(check: str, folder: Path, least: float) -> Finding:
    """Whether a file can be written in a folder, or in the one in which it would be made, and what room is left."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.NamedTemporaryFile(prefix=".ctfed-doctor-", dir=place) as probe:
            probe.write(b"0" * 4096)
            probe.flush()
        free = shutil.disk_usage(place).free
    except OSError as error:
        advice = f"mount a folder there that uid {os.getuid()} can write"
        return wrong(check, f"{folder} cannot be written ({error.strerror}); {advice}")
    missing = "" if place == folder else f", will be made in {place}"
    about = f"{folder} can be written{missing}, {size(free)} free"
    if free < least:
        return wrong(check, f"{about}, expected at least {size(least)}")
    return ok(check, about)


def resources(subject: Subject) -> Iterator[Finding]:
    """Cores and memory, the container's limit included."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = _memory()
    if memory is None:
        yield skipped("machine", f"{cores} cores; this system does not tell its memory")
        return
    about = f"{cores} cores, {size(memory)} memory"
    yield ok("machine", about) if memory >= LEAST_MEMORY else look("machine", f"{about}; Flower alone takes 0.5 GiB")


def _memory() -> float | None:
    found = []
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        found.append(float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE"))
    for name in _LIMITS:
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal():
            found.append(float(text))
    return min(found, default=None)


def gpu(subject: Subject) -> Iterator[Finding]:
    """Whether the networks of the site's settings find the GPU that they need."""
    from ctfed.doctor_site import networks

    wanted = networks(subject)
    if not wanted:
        yield skipped("gpu", "no network runs at this site")
        return
    try:
        import torch
    except ImportError:
        yield wrong("gpu", "package 'torch' is not installed, expected it for segmentation; use the site image")
        return
    asked = sorted({device for _, device in wanted})
    if not torch.cuda.is_available():
        driver = f"the driver sees {cards}" if (cards := _driver()) else "the driver sees none"
        sentence = f"torch {torch.__version__} finds no GPU ({driver})"
        if any(device.startswith("cuda") for device in asked):
            yield wrong("gpu", f"{sentence}, and the settings ask for {', '.join(asked)}")
        else:
            yield look("gpu", f"{sentence}; networks run on the CPU, minutes a scan")
        return
    kernels = torch.cuda.get_arch_list()
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        about = f"cuda:{index} {properties.name}, {size(properties.total_memory)}"
        major = f"sm_{properties.major}"
        if any(kernel.startswith(major) for kernel in kernels):
            yield ok("gpu", about)
        else:
            yield wrong("gpu", f"{about}: this torch has kernels for {', '.join(kernels)}, expected {major}x")


def _driver() -> str:
    """The GPUs that the driver's own tool lists; '' without the tool."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        told = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "; ".join(line.split(" (UUID")[0] for line in told.stdout.splitlines() if line.startswith("GPU"))


def size(count: float) -> str:
    """Bytes in GiB, with one digit behind the point."""
    return f"{count / GIB:.1f} GiB"
