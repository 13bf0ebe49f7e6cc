"""Two hosts: network namespaces with host names of their own, each with its own cache folder.

They are made by root of Linux alone; elsewhere the test is skipped.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ipyparallel")
ADDRESSES = {"a": "10.213.7.1", "b": "10.213.7.2"}
PROFILE = """
c = get_config()
c.IPController.ip = c.IPController.location = "10.213.7.1"
c.IPController.enable_curve = {curve}
"""
PROGRAM = """
import json, sys, torch
from ipyparallel import Client
from torch import nn
from nbfinetune import ImageDataLoaders, Learner
from nbfinetune.data.transforms import ImageTransforms

torch.set_num_threads(1)
dls = ImageDataLoaders.from_folder(sys.argv[1], size=32, bs=4, valid_pct=0.34)
Client(profile="two").wait_for_engines(2, timeout=60)

def trained(**by):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    head = nn.Sequential(nn.Flatten(), nn.Linear(8, 3))
    model = nn.Sequential(body, head)
    learn = Learner(dls, model, groups=[[body], [head]], transforms=ImageTransforms(32))
    learn.fit(2, 1e-2, show=False, checkpoint="off", **by)
    return learn

try:
    alone, together = trained(), trained(cluster="two")
except Exception as error:
    print(json.dumps({"error": str(error)}))
else:
    losses = [learn.recorder.run.losses for learn in (alone, together)]
    print(json.dumps({"losses": losses, "cluster": str(together.cluster)}))
"""


def _made(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def _two_networks() -> bool:
    """Whether two namespaces are there, joined by a cable."""
    if not sys.platform.startswith("linux") or os.geteuid() or not shutil.which("ip"):
        return False
    made = all(_made("ip", "netns", "add", f"nbft-{host}") for host in ADDRESSES)
    made = made and _made(
        *("ip", "link", "add", "nbft-a", "netns", "nbft-a", "type", "veth"),
        *("peer", "name", "nbft-b", "netns", "nbft-b"),
    )
    for host, address in ADDRESSES.items():
        at = ("ip", "-n", f"nbft-{host}")
        made = made and _made(*at, "addr", "add", f"{address}/24", "dev", f"nbft-{host}")
        made = made and all(_made(*at, "link", "set", up, "up") for up in ("lo", f"nbft-{host}"))
    return made


@pytest.fixture(scope="module")
def networks() -> Iterator[None]:
    try:
        if not _two_networks():
            pytest.skip("no network namespaces: they need Linux, ip of iproute2, and root")
        yield
    finally:
        for host in ADDRESSES:
            _made("ip", "netns", "del", f"nbft-{host}")


def _on(host: str, folder: Path, *arguments: str) -> list[str]:
    """Python on a host, which does not see the cache folder of the other one."""
    other = folder / next(each for each in ADDRESSES if each != host)
    other.mkdir(exist_ok=True)
    inside = (
        f"hostname host-{host}; mount -t tmpfs none {other}; "
        f'export NBFINETUNE_CACHE={folder / host}; exec "$@"'
    )
    isolated = ["ip", "netns", "exec", f"nbft-{host}", "unshare", "--uts", "--mount"]
    return [*isolated, "sh", "-c", inside, "sh", sys.executable, *arguments]


def _given(folder: Path, photos: Path, *, curve: bool) -> dict:
    """What the program gives, on host a, with an engine on each host."""
    home = folder / "profile_two"
    home.mkdir()
    (home / "ipcontroller_config.py").write_text(PROFILE.format(curve=curve))
    (folder / "program.py").write_text(PROGRAM)
    env = os.environ | {"IPYTHONDIR": str(folder), "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": env}
    running = []
    try:
        command = _on("a", folder, "-m", "ipyparallel.controller", "--profile=two")
        running.append(subprocess.Popen(command, **quiet))
        until = time.monotonic() + 60
        while not list(home.glob("security/*-engine.json")) and time.monotonic() < until:
            time.sleep(0.1)
        for host in ADDRESSES:
            command = _on(host, folder, "-m", "ipyparallel.engine", "--profile=two")
            running.append(subprocess.Popen(command, **quiet))
        command = _on("a", folder, str(folder / "program.py"), str(photos))
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=180)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(20)


def test_two_hosts_train_as_one_process_does_and_get_the_pictures_once(
    networks: None, tmp_path: Path, photos: Path
) -> None:
    found = _given(tmp_path, photos, curve=True)
    alone, together = found["losses"]
    assert together == pytest.approx(alone, rel=1e-5)
    assert all(f"host-{host}" in found["cluster"] for host in ADDRESSES)
    for host in ADDRESSES:  # a file of all pictures
        assert len([file for file in (tmp_path / host).rglob("*.squares") if file.is_file()]) == 1


def test_two_hosts_that_would_send_in_clear_are_refused(
    networks: None, tmp_path: Path, photos: Path
) -> None:
    found = _given(tmp_path, photos, curve=False)
    assert "send in clear" in found["error"]
    assert "c.IPController.enable_curve = True" in found["error"]
