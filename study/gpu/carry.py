"""What a machine without a network needs, put together where there is one; and results brought back as one
file.

``fetch`` writes study/gpu/carried/: base.tar.xz (packages that few machines have, and the data) and SmolLM2
in pieces, each small enough to be sent along with a source tree. ``settle`` unpacks them on the other side.
None of it is committed. Packages are those of the environment that ``fetch`` runs in: none of them is
compiled for one Python.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import sys
import tarfile
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from study.gpu.places import ROOT

CARRIED = Path(__file__).resolve().parent / "carried"

PACKAGES = (
    "rouge-score",
    "nltk",
    "defusedxml",
    "gguf",
    "bitsandbytes",
)  # and what rouge-score needs that torch's images lack

PIECE = 32 << 20  # bytes

DATA = {
    "lume": "LUME",
    "semeval25-unlearning-data": "SemEval-2025",
    "mmlu": "MMLU",
}  # folders below REPROLIB_DATA


def fetch(cuda: str, weights: bool = True) -> None:
    """Fill study/gpu/carried/. ``cuda``: version of the GPU machine's torch without its point, e.g. 130;
    other libraries are left out.
    """
    CARRIED.mkdir(exist_ok=True)
    contents = {f"site/{n}": content for name in PACKAGES for n, content in package(name, cuda).items()}
    given = Path(os.environ.get("REPROLIB_DATA", "")).expanduser()
    for folder, title in DATA.items():
        found = (
            [p for p in sorted((given / folder).rglob("*")) if p.is_file()]
            if os.environ.get("REPROLIB_DATA")
            else []
        )
        print(
            f"{title}: {len(found)} files"
            if found
            else f"{title}: none (REPROLIB_DATA holds no folder {folder})"
        )
        contents |= {f"data/{p.relative_to(given)}": p.read_bytes() for p in found}
    from reprolib.provenance import git_state

    commit, dirty = git_state()
    contents["manifest.json"] = json.dumps({"commit": commit, "dirty": dirty, "sources": sources()}).encode()
    write(CARRIED / "base.tar.xz", contents, "xz")
    if weights:
        from reprolib.testbeds import smollm2

        path = smollm2.gguf_file()
        content = path.read_bytes()
        pieces = [content[i : i + PIECE] for i in range(0, len(content), PIECE)]
        for number, piece in enumerate(pieces):
            (CARRIED / f"{path.name}.{number + 1}of{len(pieces)}").write_bytes(piece)
    for path in sorted(CARRIED.iterdir()):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 2**20:.1f} MiB")


def package(name: str, cuda: str) -> dict[str, bytes]:
    """Files of an installed package by their places beside others; of bitsandbytes' libraries only those for
    a CPU and ``cuda``.
    """
    from reprolib.errors import SpecError

    try:
        listed = [f for f in files(name) or () if ".." not in f.parts and "__pycache__" not in f.parts]
    except PackageNotFoundError as error:
        raise SpecError(
            f"package {name} is not installed here, so it cannot be carried; run `make setup` first."
        ) from error
    libraries = sorted(f.stem.rpartition("_")[2] for f in listed if f.suffix == ".so")
    if libraries and f"cuda{cuda}" not in libraries:
        raise SpecError(
            f"{name} has no library for --cuda {cuda}; it has {', '.join(libraries)}: give the number of a"
            " cuda one."
        )
    wanted = [f for f in listed if f.suffix != ".so" or f.stem.endswith((f"_cuda{cuda}", "_cpu"))]
    return {str(f): f.locate().read_bytes() for f in wanted}


def sources() -> str:
    """Hash of the package's sources, by which a copy without git knows whether it is the commit that it was
    taken from.
    """
    out = hashlib.sha256()
    for path in sorted((ROOT / "reprolib").rglob("*.py")):
        out.update(f"{path.relative_to(ROOT)}:{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return out.hexdigest()[:16]


def settle() -> None:
    """Put in place what was carried, if anything was: packages on the path, data, SmolLM2, the commit,
    results of earlier calls.
    """
    from filelock import FileLock

    cache = Path(os.environ["REPROLIB_CACHE"])
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "carried.lock"):
        base = CARRIED / "base.tar.xz"
        if base.exists():
            folder = cache / f"carried-{hashlib.sha256(base.read_bytes()).hexdigest()[:8]}"
            if not (folder / "manifest.json").exists():
                unpack(base, folder)
            sys.path.append(str(folder / "site"))  # behind the machine's own packages
            if (folder / "data").exists():
                os.environ.setdefault("REPROLIB_DATA", str(folder / "data"))
            _commit(folder / "manifest.json")
        _join(cache / "smollm2")
        if kept().exists():
            unpack(kept(), Path(os.environ["REPROLIB_RESULTS"]), over=False)


def _join(folder: Path) -> None:
    """Put SmolLM2 together. Pieces may come one a call, so each is put aside until all are there."""
    for piece in CARRIED.glob("*.*of*"):
        whole, own = folder / piece.stem, folder / "pieces" / piece.name
        if not whole.exists() and not own.exists():
            own.parent.mkdir(parents=True, exist_ok=True)
            _put(own, piece.read_bytes())
    for first in (folder / "pieces").glob("*.1of*"):
        count = int(first.name.rpartition("of")[2])
        pieces = [first.with_name(f"{first.stem}.{k + 1}of{count}") for k in range(count)]
        if all(p.exists() for p in pieces):
            _put(folder / first.stem, b"".join(p.read_bytes() for p in pieces))
            for p in pieces:
                p.unlink()


def _put(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)


def _commit(manifest: Path) -> None:
    from reprolib import provenance

    if provenance.git_state() == (None, None):
        about = json.loads(manifest.read_text())
        state = about["commit"], about["dirty"] or about["sources"] != sources()
        provenance.git_state = functools.lru_cache(lambda: state)


def kept() -> Path:
    """Results as one file in the cache, for where a new copy of the source tree takes away what is not
    committed.
    """
    return Path(os.environ["REPROLIB_CACHE"]) / "gpu-results.tar.gz"


def pack(*archives: Path) -> int:
    """Write all results into each archive; returns how many files."""
    folder = Path(os.environ["REPROLIB_RESULTS"])
    contents = {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*.json"))
        if not p.name.startswith(".")
    }
    for archive in archives:
        write(archive, contents, "gz")
    return len(contents)


def write(archive: Path, contents: dict[str, bytes], compression: str) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_name(f"{archive.name}.{os.getpid()}.part")
    with tarfile.open(part, f"w:{compression}") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    os.replace(part, archive)


def unpack(archive: Path, folder: Path, over: bool = True) -> int:
    """Files of an archive into a folder, ``over`` those that are there or not; returns how many were
    written.
    """
    from reprolib.errors import SpecError

    if not archive.is_file() or not tarfile.is_tarfile(archive):
        raise SpecError(
            f"{archive} is no archive of results; give one that `python -m study.gpu run --pack` wrote."
        )
    count = 0
    with tarfile.open(archive) as tar:
        for info in tar:
            if info.isfile() and (over or not (folder / info.name).exists()):
                tar.extract(info, folder, filter="data")
                count += 1
    return count
