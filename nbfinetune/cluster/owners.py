"""Owners: the process that started a cluster or took it over, as a file beside it."""

import json
import os
import socket
from pathlib import Path

from nbfinetune.runtime.own_files import write_whole


def _file(folder: Path, cluster_id: str) -> Path:
    return folder / f"nbfinetune-{cluster_id}.json"


def own(folder: Path, cluster_id: str) -> None:
    """Note that a cluster is of this process."""
    import psutil

    about = {"host": socket.gethostname(), "pid": os.getpid()}
    about["started"] = psutil.Process().create_time()
    write_whole(_file(folder, cluster_id), json.dumps(about).encode())


def clean(folder: Path, cluster_id: str) -> None:
    """Take away what a cluster that is no more left: connection files, notes, logs."""
    for place in (folder, folder.parent / "log"):
        for file in place.glob(f"*{cluster_id}*"):
            file.unlink(missing_ok=True)


def owner(folder: Path, cluster_id: str) -> str | None:
    """Whose a cluster is: "mine", "other", "gone" or, where no notebook started it, None.

    A process on another host, which this one cannot ask, is taken to be there.
    """
    import psutil

    try:
        about = json.loads(_file(folder, cluster_id).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:  # just being written
        return "other"
    if about["host"] != socket.gethostname():
        return "other"
    try:
        there = psutil.Process(about["pid"]).create_time() == about["started"]
    except psutil.NoSuchProcess:
        there = False
    return "gone" if not there else "mine" if about["pid"] == os.getpid() else "other"
