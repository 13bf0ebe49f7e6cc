"""Security: what goes over a network between the processes of a cluster is encrypted.

Messages are pickles, signed or encrypted: who can read them sees data and weights. On one host
they go over its loopback; off it they need CurveZMQ or a tunnel of SSH.
"""

import json
import logging
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nbfinetune.cluster.errors import ClusterError

_FIX = (
    "write c.IPController.enable_curve = True into ipcontroller_config.py of the profile, "
    "and start the cluster anew"
)


def connection_files(folder: Path, cluster_id: str) -> dict[str, dict]:
    """How a client and, where that is known, an engine connect: the files of a controller."""
    found = {}
    for kind in ("client", "engine"):
        file = folder / f"ipcontroller{cluster_id and '-'}{cluster_id}-{kind}.json"
        if kind == "client" or file.exists():
            found[kind] = json.loads(file.read_text())
    return found


def _listens_on(info: dict) -> str:
    """The address of a controller: that of its interface, or of its host where that is any."""
    address = info["interface"].partition("://")[2].strip("[]")
    return info["location"] if address in ("0.0.0.0", "*", "::") else address


def _is_here(address: str) -> bool:
    """Whether an address or a name is one of this host."""
    try:
        address = socket.gethostbyname(address)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))  # which the system allows for its own addresses alone
    except OSError:
        return address == socket.gethostname()
    return True


def _is_loopback(address: str) -> bool:
    return address == "localhost" or address.startswith("127.") or address == "::1"


def check_controller(name: str, files: dict[str, dict]) -> None:
    """Refuse a controller on another host whose messages are not encrypted.

    One that listens on the loopback of another host is reached by a tunnel, or not at all.

    Parameters
    ----------
    name : what the cluster is called
    files : see `connection_files`

    Raises
    ------
    ClusterError
        With the line that sets encryption.
    """
    client = files["client"]
    if client.get("curve_serverkey") or client.get("ssh"):
        return
    address = _listens_on(client)
    if not _is_loopback(address) and not _is_here(address):
        raise ClusterError(f"{name}: its controller on {address} sends in clear; {_FIX}")


def check_engines(name: str, files: dict[str, dict], hosts: Sequence[str]) -> str | None:
    """Refuse engines on another host whose messages are not encrypted.

    Returns
    -------
    str | None
        The address of the controller, None where all engines are on this host.

    Raises
    ------
    ClusterError
        With the line that sets encryption.
    """
    engine = files.get("engine", files["client"])
    address = _listens_on(engine)
    off = sorted({host for host in hosts if host != socket.gethostname()})
    if not off:
        return None
    if not (engine.get("curve_serverkey") or engine.get("ssh") or _is_loopback(address)):
        raise ClusterError(f"{name}: its workers on {', '.join(off)} send in clear; {_FIX}")
    return address


def answers(files: dict[str, dict]) -> bool:
    """Whether a controller takes connections; one behind a tunnel of SSH is taken to.

    That is asked of its port, as nothing tells a client that a controller was killed.
    """
    client = files["client"]
    if client.get("ssh"):
        return True
    try:
        with socket.create_connection((_listens_on(client), client["registration"]), timeout=2):
            return True
    except OSError:
        return False


@contextmanager
def unsaid_that_not_signed(files: dict[str, dict]) -> Iterator[None]:
    """Without jupyter_client's warning that messages are not signed, where they are encrypted."""
    from traitlets.log import get_logger

    def passes(record: logging.LogRecord) -> bool:
        return "signing is disabled" not in record.getMessage()

    log = get_logger()
    if files["client"].get("curve_serverkey"):
        log.addFilter(passes)
    try:
        yield
    finally:
        log.removeFilter(passes)
