"""What `ctfed doctor` checks of a site's own files: mounts, inputs, outputs, weights, policy, keys, approval."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ctfed.doctor import Finding, Subject, look, ok, skipped, wrong
from ctfed.doctor_machine import GIB, writable
from ctfed.federation.errors import CtfedError

if TYPE_CHECKING:
    from ctfed.imaging.segment.weights import Origin

LEAST_OUTPUT = 5 * GIB  # features, masks and checks of a few hundred scans
LEAST_LEDGER = 0.5 * GIB
_ENTRIES = 200  # of a folder of scans that are looked at
_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = {r"\040": " ", r"\011": "\t", r"\134": "\\"}


@dataclass(frozen=True)
class Mount:
    """The file system that a path lies on.

    Attributes:
        point: where it is mounted.
        kind: its type, for example ext4.
        read_only: whether nothing can be written.
    """

    point: Path
    kind: str
    read_only: bool

    def __str__(self) -> str:
        return f"{self.kind} {'read-only' if self.read_only else 'writable'}"


def mount_of(path: Path, table: Path = _MOUNTS) -> Mount | None:
    """The mount that a path lies on; None where the system has no such table."""
    if not table.is_file():
        return None
    found: Mount | None = None
    real = path.resolve()
    for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        fields, behind = before.split(), after.split()
        text = fields[4]
        for escape, character in _ESCAPED.items():
            text = text.replace(escape, character)
        point = Path(text)
        if real.is_relative_to(point) and (found is None or len(point.parts) >= len(found.point.parts)):
            options = {*fields[5].split(","), *behind[2].split(",")}
            found = Mount(point, behind[0], "ro" in options)
    return found


# -- inputs


def inputs(subject: Subject) -> Iterator[Finding]:
    """Whether the centre's data are there, can be read, and cannot be written."""
    site = subject.site
    if site.data.csv is not None:
        yield _readable("table", site.data.csv)
    if site.prepare is not None:
        for name in ("clinical", "dictionary", "extraction"):
            yield _readable(name, getattr(site.prepare, name))
        yield _scans(site.prepare.scans)
        if site.data.prepared:
            from ctfed.cohort.prepared import FEATURES

            table = site.prepare.local / FEATURES
            yield (
                ok("table", f"{table} is there")
                if table.is_file()
                else look("table", f"{table}: not yet prepared; run `ctfed prepare`")
            )
    if site.data.package is not None:
        yield ok("table", f"a public table of the package {site.data.package}")


def _readable(check: str, path: Path) -> Finding:
    """A file is opened and a folder listed: in an enclave rights come from access lists, which no mode shows."""
    try:
        if path.is_dir():
            next(os.scandir(path), None)
        else:
            path.open("rb").close()
    except OSError as error:
        return wrong(check, f"{path} cannot be read ({error.strerror}); mount it, readable for uid {os.getuid()}")
    return ok(check, f"{path} can be read{_on(path)}")


def _on(path: Path) -> str:
    mount = mount_of(path)
    return "" if mount is None else f" ({mount})"


def _scans(folder: Path) -> Finding:
    try:
        entries = list(islice(os.scandir(folder), _ENTRIES))
        deeper = [child for entry in entries if entry.is_dir() for child in islice(os.scandir(entry), _ENTRIES)]
    except OSError as error:
        return wrong("scans", f"{error.filename or folder} cannot be read ({error.strerror}); mount it, readable")
    if not entries:
        return wrong("scans", f"{folder}: found nothing, expected patients; is it mounted?")
    broken = [entry.path for entry in (*entries, *deeper) if entry.is_symlink() and not Path(entry.path).exists()]
    if broken:
        target = Path(os.readlink(broken[0])).parent
        return wrong(
            "scans", f"{folder}: {len(broken)} links lead nowhere; mount what they lead to, for example {target}"
        )
    mount = mount_of(folder)
    if mount is not None and not mount.read_only and os.access(folder, os.W_OK):
        return look("scans", f"{folder} can be read, and written ({mount}); mount it read-only")
    return ok("scans", f"{folder} can be read{_on(folder)}")


# -- outputs


def outputs(subject: Subject) -> Iterator[Finding]:
    """Whether what must be written can be, with room."""
    site = subject.site
    if site.prepare is not None:
        yield writable("output", site.prepare.output, LEAST_OUTPUT)
    if site.trust is not None:
        yield writable("ledger", site.trust.ledger, LEAST_LEDGER)
    if site.secret is not None and not site.secret.exists():
        finding = writable("secret", site.secret.parent, 0)
        yield (
            finding
            if finding.sentence.find("cannot") >= 0
            else look("secret", f"{site.secret} is made at the first use; keep it, folds depend on it")
        )
    elif site.secret is not None:
        site.secret_of(str(site.site))
        yield ok("secret", f"{site.secret} is there and closed to other users")


# -- weights


def networks(subject: Subject) -> list[tuple[str, str]]:
    """Model and device of each network that the site's settings use; none where scans are not prepared.

    Raises:
        ConfigError: when the settings cannot be read.
    """
    return [(name, device) for name, device, _, _, _ in _models(subject)]


def weights(subject: Subject) -> Iterator[Finding]:
    """Whether the weights of every network are there, with the checksums of their manifest."""
    from ctfed.imaging.segment.weights import check_weights

    models = _models(subject)
    if not models:
        yield skipped("weights", "no network runs at this site")
    for name, _, folder, origin, (manifest, expected) in models:
        try:
            checked = check_weights(folder, origin, manifest=manifest, expected=expected)
        except CtfedError as error:
            yield from (wrong("weights", f"{name}: {line}") for line in str(error).splitlines())
        else:
            pinned = "as the settings pin it" if expected else "pinned by no setting"
            yield ok("weights", f"{name}: {len(checked.files)} files, digest {checked.digest[:12]}, {pinned}")


_Model = tuple[str, str, Path | None, "Origin", tuple[Path | None, str | None]]


def _models(subject: Subject) -> Sequence[_Model]:
    if subject.site.prepare is None:
        return ()
    from ctfed.imaging.segment import load_card
    from ctfed.preparation.settings import at_site, load_extraction

    where = subject.site.prepare
    settings = at_site(load_extraction(where.extraction), where.weights, where.licence_number)
    found: list[_Model] = []
    for model in settings.segmentation:
        card = load_card(model.model)
        if card.engine in ("nnunet", "totalsegmentator"):
            found.append((card.name, model.device, model.weights, card.origin, (model.manifest, model.weights_sha256)))
    own = settings.foundation
    if own is not None:
        found.append(("fmcib", own.device, own.weights, load_card("fmcib").origin, (own.manifest, own.weights_sha256)))
    return found


# -- trust


def policy(subject: Subject) -> Iterator[Finding]:
    """Whether the site's limits can be read."""
    from ctfed.federation.policy import Policy
    from ctfed.trust import policy_of, trust_of

    trust = trust_of(subject.site)
    if trust is None:
        yield look("policy", "UNMASKED: the site file says that its data are public; no limits apply")
        return
    limits = policy_of(trust)
    changed = [name for name in Policy.model_fields if getattr(limits, name) != getattr(Policy(), name)]
    named = "the defaults" if trust.policy is None else str(trust.policy)
    yield ok(
        "policy",
        f"{named}; " + (f"other than the defaults: {', '.join(changed)}" if changed else "each limit at its default"),
    )


def keys(subject: Subject) -> Iterator[Finding]:
    """Whether the site's keys are there, closed to others, and those of the roster."""
    from ctfed.federation.masking import read_mask_key
    from ctfed.trust import roster_of, trust_of

    trust = trust_of(subject.site)
    if trust is None:
        yield skipped("keys", "an unmasked site has no mask key")
        return
    read_mask_key(trust.key)
    yield ok("keys", f"{trust.key} is closed to other users")
    roster = roster_of(subject.site, trust.roster)
    print_ = roster.fingerprint(str(subject.site.site))
    yield ok("roster", f"{len(roster.sites)} sites, digest {roster.digest[:12]}; this site's fingerprint {print_}")


def approval(subject: Subject) -> Iterator[Finding]:
    """Whether the study is approved as it is now."""
    from ctfed.trust import APPROVALS, standing, trust_of

    if subject.study is None:
        yield skipped("approval", "no study was named with --study")
        return
    trust = trust_of(subject.site)
    # Both would be made here if they were absent, and a doctor makes nothing.
    if trust is not None and not ((trust.ledger / APPROVALS).exists() and _secret_is_there(subject)):
        yield wrong("approval", f"the study {subject.study.name} is not approved; look at it with `ctfed approve`")
        return
    sentence = standing(subject.site, subject.study)
    yield look("approval", sentence) if trust is None else ok("approval", sentence)


def _secret_is_there(subject: Subject) -> bool:
    return subject.site.secret is None or subject.site.secret.exists()
