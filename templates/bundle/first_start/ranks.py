"""Which rank of an engine this process is, where srun or mpirun started one process for each."""

import os
from typing import Any

from first_start import MISSING, Refused

#: Rank and number of ranks, as each launcher says them; Open MPI's come first, because mpirun may run inside Slurm.
LAUNCHERS = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("PMI_RANK", "PMI_SIZE"),
)


def own(bundle: dict[str, Any]) -> int:
    """Return this process's rank; raise unless there are as many processes as the engine has ranks."""
    wanted = bundle["world_size"]
    if bundle["flow"] != "engine" or bundle.get("instances", 1) > 1:
        raise Refused(
            "Only the ranks of one compiled engine are started one by one.",
            hint="Start it without --rank.",
            code=MISSING,
        )
    for rank, size in LAUNCHERS:
        if os.environ.get(rank, "").isdigit() and os.environ.get(size, "").isdigit():
            if int(os.environ[size]) == wanted:
                return int(os.environ[rank])
            raise Refused(
                f"This engine has {wanted} rank{'s' * (wanted > 1)}; {os.environ[size]} were started.",
                hint=f"srun --ntasks={wanted}, or mpirun -n {wanted}.",
                code=MISSING,
            )
    raise Refused(
        "This process has no rank: neither srun nor mpirun started it.",
        hint="Start it without --rank, or as srun --mpi=pmix … start.py --rank.",
        code=MISSING,
    )
