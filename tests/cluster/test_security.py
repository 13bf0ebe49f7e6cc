import pytest

from nbfinetune.cluster.errors import ClusterError
from nbfinetune.cluster.security import answers, check_controller, check_engines

FIX = "write c.IPController.enable_curve = True into ipcontroller_config.py of the profile"


def files(interface: str, location: str = "vm", **more: str) -> dict[str, dict]:
    """What ipcontroller writes of where it listens."""
    info = {"interface": f"tcp://{interface}", "location": location, "ssh": "", "registration": 9}
    return dict.fromkeys(("client", "engine"), info | more)


def test_one_host_needs_no_encryption() -> None:
    import socket

    here = socket.gethostname()
    for interface in ("127.0.0.1", "0.0.0.0"):
        check_controller("local", files(interface, location="127.0.0.1"))
        assert check_engines("local", files(interface), [here, here]) is None


@pytest.mark.parametrize("where", [("192.0.2.7", "vm"), ("0.0.0.0", "192.0.2.7")])
def test_a_controller_elsewhere_that_sends_in_clear_is_refused(where) -> None:
    with pytest.raises(ClusterError, match=r"profile x: its controller on 192.0.2.7 sends") as c:
        check_controller("profile x", files(*where))
    assert FIX in str(c.value)


def test_workers_elsewhere_that_send_in_clear_are_refused() -> None:
    with pytest.raises(ClusterError, match=r"profile x: its workers on n1, n2 send in clear") as c:
        check_engines("profile x", files("192.0.2.7"), ["n2", "n1", "n2"])
    assert FIX in str(c.value)


@pytest.mark.parametrize("more", [{"curve_serverkey": "key"}, {"ssh": "me@192.0.2.7"}])
def test_curve_or_a_tunnel_make_other_hosts_safe(more) -> None:
    elsewhere = files("192.0.2.7", **more)
    check_controller("profile x", elsewhere)
    assert check_engines("profile x", elsewhere, ["n1", "n2"]) == "192.0.2.7"


def test_engines_elsewhere_reach_a_loopback_by_a_tunnel_alone() -> None:
    assert check_engines("profile x", files("127.0.0.1"), ["n1"]) == "127.0.0.1"


def test_a_port_that_nobody_listens_on_does_not_answer() -> None:
    assert not answers(files("127.0.0.1"))
