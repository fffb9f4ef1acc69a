"""Compare every file of a run folder with the digest that was kept when it was written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from saelens_steer.errors import InputError
from saelens_steer.numbers import count
from saelens_steer.run_folder import RunFolder
from saelens_steer.sealed import content_digest, read_sealed
from saelens_steer.step_records import STATE

STORE = ".store"
"""The folder of what a run keeps for the next: shards, answers, batches that were halved."""


def verify(run_dir: str | Path) -> list[str]:
    """The files of a run folder, in order, all of which are as they were written.

    Covers what the steps wrote, stale files that are still there, the records themselves and the
    store; not files that no step wrote. Raises InputError with the name of every file that is
    missing, changed or damaged.
    """
    folder = RunFolder(run_dir)
    if not folder.path(STATE).is_dir():
        raise InputError(f"{run_dir} is not a run folder: it has no {STATE} folder")
    checked = dict(_verdicts(folder))
    if bad := sorted(name for name, is_whole in checked.items() if not is_whole):
        are = "is missing or was" if len(bad) == 1 else "are missing or were"
        raise InputError(
            f"{len(bad)} of {count(len(checked), 'file')} in {folder.root} {are} changed: "
            f"{', '.join(bad)}. {_remedy(folder, bad)}"
        )
    return sorted(checked)


def _remedy(folder: RunFolder, bad: list[str]) -> str:
    """What to do about damaged files: a run reads no shard of steps that are done."""
    kept = [name for name in bad if name.startswith(f"{STORE}/")]
    if len(kept) == len(bad):
        them = "it" if len(bad) == 1 else "them"
        return f"Delete {them}: a run computes {them} again if it needs {them}"
    if kept:
        return f"Delete those in {STORE}, and {folder.remedy('the others')}"
    remedy = folder.remedy("it" if len(bad) == 1 else "them")
    return remedy[0].upper() + remedy[1:]


def _verdicts(folder: RunFolder) -> Iterator[tuple[str, bool]]:
    """Every file with a digest, and whether its content has that digest."""
    records, stale, made = folder.records, dict[str, set[str]](), set[str]()
    for step in records.steps():
        try:
            record = records[step]
        except InputError:
            yield f"{STATE}/{step}.json", False
            continue
        yield f"{STATE}/{step}.json", True
        for name, digest in record.files.items():
            made.add(name)
            yield name, content_digest(folder.path(name)) == digest
        for name, digest in record.stale.items():
            stale.setdefault(name, set()).add(digest)
    for name, digests in stale.items():
        if name not in made and folder.path(name).exists():
            yield name, content_digest(folder.path(name)) in digests
    for path in sorted(folder.path(STORE).rglob("*.json")):
        yield path.relative_to(folder.root).as_posix(), _is_sealed(path)
    for kind in ("parquet", "safetensors"):
        for path in sorted(folder.path(STORE).rglob(f"*.{kind}")):
            name = path.relative_to(folder.root).as_posix()
            yield name, content_digest(path) == path.name.rsplit(".", 2)[-2]


def _is_sealed(path: Path) -> bool:
    try:
        read_sealed(path)
    except (OSError, ValueError):
        return False
    return True
