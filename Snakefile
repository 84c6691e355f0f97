# source -> run -> page -> book. Knows no science: study.yml says which runs there are, reprolib makes them.
#
#   snakemake                          what is missing, on this machine (profiles/default)
#   snakemake --profile profiles/slurm the same on a cluster
#   snakemake -n                       what would be done, and why
#   snakemake --config grid=smoke      the smoke twin

import json
import os
import shlex
import sys

from study.grid import Grid
from reprolib.places import project_root
from reprolib.record import path_of
from study.runner import code_stamp

GRID_NAME = config.get("grid", "study")
GRID = Grid.load(GRID_NAME)
ROOT = str(project_root())


PYTHON = shlex.quote(sys.executable).replace("{", "{{").replace("}", "}}")  # Snakemake formats what shell says


def local(path):
    return os.path.relpath(path, ROOT)


RECORDS = {local(path_of(s)): s for s in GRID.specs}
PAGES = {local(p.output): p for p in GRID.pages.values()}
CODE = local(code_stamp())  # pages show code, and say what it says
SOURCES = {local(p.output): local(p.notebook) for p in GRID.pages.values()}


rule all:
    input:
        list(RECORDS),  # also those that were removed under a page that is newer
        list(PAGES),


rule records:
    input:
        list(RECORDS),


# A record's name holds the hash of everything that decides its content, so that there is nothing else to depend on, and a
# record that exists needs no rule (a job on a cluster reads this file anew: its own rule must be there whatever else ended).
# Runs start in the order of study.yml.
TO_RUN = {p: s for p, s in RECORDS.items() if not (workflow.is_main_process and os.path.exists(os.path.join(ROOT, p)))}
for number, (path, spec) in enumerate(TO_RUN.items()):

    rule:
        name:
            f"run_{spec.fingerprint}"
        output:
            path,
        params:
            fingerprint=spec.fingerprint,
        priority: len(TO_RUN) - number
        resources:
            gpu=0 if spec.testbed.startswith(("tiny", "smoke")) else 1,
            mem_mb=4000,
            runtime=60,
        shell:
            f"{PYTHON} -m study run --grid {GRID_NAME} --fingerprint {{params.fingerprint}} > /dev/null"


for path, page in PAGES.items():

    rule:
        name:
            "page_" + page.name.replace("/", "_")
        input:
            source=SOURCES[path],
            records=[local(path_of(s)) for s in page.specs],
            code=CODE,
        output:
            path,
        params:
            parameters=shlex.quote(json.dumps(dict(page.parameters))),
        shell:  # not `reprolib page`, which reads the whole grid to find what is known here
            f"{PYTHON} -m study.runner {{input.source:q}} {{output:q}} {{params.parameters}}"
