"""Files of ours: written whole, by one process at a time, and never lost on the way."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nbfinetune import Corrections
from nbfinetune.data.corrections import read_corrections
from nbfinetune.runtime import own_files
from nbfinetune.runtime.own_files import locked, write_whole

posix = pytest.mark.skipif(os.name == "nt", reason="rights, forks and signals are those of POSIX")
fault = pytest.mark.fault


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def in_child(work: Callable[[], object]) -> int:
    """The process that does the work and ends."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def one_line(error: BaseException, *words: str) -> None:
    assert "\n" not in str(error)
    assert all(word in str(error) for word in words), str(error)


@fault("a disk that is full at the first byte, at the sync", "the old file stays, one line")
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_alone(call, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "m").write_bytes(b"old")

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(tmp_path / "m", b"new")
    one_line(caught.value, "m cannot be written")
    assert (tmp_path / "m").read_bytes() == b"old"
    assert names(tmp_path) == ["m"]


@posix
@fault("a limit of 1 MB for files (RLIMIT_FSIZE)", "the old file stays, one line, no part")
def test_a_file_that_may_not_grow_is_told(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"old")
    code = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from nbfinetune.runtime.own_files import write_whole\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
        "try: write_whole(Path(sys.argv[1]), bytes(2**22))\n"
        "except OSError as error: print(error)"
    )
    command = [sys.executable, "-c", code, tmp_path / "m"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path / 'm'} cannot be written (File too large)\n"
    assert (tmp_path / "m").read_bytes() == b"old"
    assert names(tmp_path) == ["m"]


@posix
@fault("a device, a folder, a name too long", "one line, nothing written")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/dev/full", "it is a folder or a device"),
        (".", "it is a folder or a device"),
        ("x" * 300, "File name too long"),
        ("gone/m", "No such file or directory"),
    ],
)
def test_what_cannot_be_a_file_of_ours_is_told(name, reason, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"cannot be written \\({reason}") as caught:
        write_whole(tmp_path / name, b"new")
    one_line(caught.value)
    assert names(tmp_path) == []
    assert not Path("/dev/full").is_file()


@posix
@fault("a folder and a file that may only be read", "one line; the file stays, the marks too")
def test_a_read_only_folder_loses_no_mark(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "old").write_bytes(b"old")
    (tmp_path / "f" / "old").chmod(0o444)

    def work() -> None:
        if os.getuid() == 0:
            os.chown(tmp_path / "f", 54321, 54321)
            for folder in (tmp_path, *tmp_path.parents[:2]):
                folder.chmod(0o755)
            os.chown(tmp_path / "f" / "old", 54321, 54321)
            os.setuid(54321)
        with pytest.raises(OSError, match="is read-only; take another name"):
            write_whole(tmp_path / "f" / "old", b"new")
        (tmp_path / "f").chmod(0o555)
        corrections = Corrections()
        corrections.mark(tmp_path / "a.png", "remove", "cat")
        with pytest.raises(OSError, match="cannot be written \\(Permission denied"):
            corrections.apply(tmp_path / "f" / "c.csv")
        assert len(corrections.marks) == 1

    assert os.waitpid(in_child(work), 0)[1] == 0
    assert (tmp_path / "f" / "old").read_bytes() == b"old"
    assert names(tmp_path / "f") == ["old"]


@posix
@fault("a link, rights of its own", "the link and the rights stay")
def test_links_and_rights_are_kept(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "m").write_bytes(b"old")
    (tmp_path / "real" / "m").chmod(0o640)
    (tmp_path / "link").symlink_to("real/m")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "m").read_bytes() == b"new"
    assert (tmp_path / "real" / "m").stat().st_mode & 0o7777 == 0o640
    assert names(tmp_path / "real") == ["m"]


@fault("a name of 250 bytes", "written: the temporary name is short")
def test_long_names_are_written(tmp_path: Path) -> None:
    for name in ("n" * 250, "ä" * 125):
        write_whole(tmp_path / name, b"new")
        with locked(tmp_path / name):
            pass
    assert len(names(tmp_path)) == 2


@fault("power cut", "file and folder are on the disk before and after the new name")
def test_the_file_is_synced_before_it_has_its_name_and_the_folder_after(tmp_path, monkeypatch):
    done, sync, rename = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append("sync"), sync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("rename"), rename(a, b)))
    write_whole(tmp_path / "m", b"new")
    assert done[:2] == ["sync", "rename"]
    assert done[2:] == ([] if os.name == "nt" else ["sync"])


@posix
@fault("parts of dead processes, of this version and the one before", "swept at the next write")
def test_parts_of_dead_processes_are_swept_and_no_others(tmp_path: Path) -> None:
    pid = in_child(lambda: None)
    os.waitpid(pid, 0)
    dead = [f".m.{pid}.0123abcd.part", f".other.{pid}.0123abcd.part", f".m.{pid}.part"]
    others = [".backup.001.part", "x.part", ".m.part", f".other.{pid}.part"]
    for name in (*dead, *others):
        (tmp_path / name).write_bytes(b"half")
    living = own_files._claimed(tmp_path / f".m.{pid}.89abcdef.part")
    write_whole(tmp_path / "m", b"new")
    assert names(tmp_path) == sorted(["m", *others, Path(living.name).name])
    living.close()
    write_whole(tmp_path / "m", b"new")
    assert names(tmp_path) == sorted(["m", *others])


@posix
@fault("an interrupt in the write", "acts when the file is whole")
def test_an_interrupt_acts_when_the_file_is_written(tmp_path: Path, monkeypatch) -> None:
    sync = os.fsync

    def interrupted(descriptor: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", lambda fd: interrupted(fd))
    monkeypatch.setattr(own_files, "_sync_folder", lambda folder: None)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "m", b"new")
    assert (tmp_path / "m").read_bytes() == b"new"
    corrections = Corrections()
    corrections.mark(tmp_path / "a.png", "remove", "cat")
    with pytest.raises(KeyboardInterrupt):
        corrections.apply(tmp_path / "c.csv")
    assert not corrections.marks
    assert len(read_corrections(tmp_path / "c.csv")) == 1
    assert names(tmp_path) == ["c.csv", "m"]


@posix
@fault("another notebook that never ends its write", "one line after a time, the marks stay")
def test_a_lock_that_is_never_given_back_is_told(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "c.csv"),
        pytest.raises(OSError, match=r"another process has been writing it for 0.1 s") as caught,
        locked(tmp_path / "c.csv", patience=0.1),
    ):
        pass
    one_line(caught.value, "c.csv cannot be written", ".c.csv.lock")
    assert names(tmp_path) == []


@posix
@fault("a process killed while it held the lock", "the next takes it at once")
def test_a_lock_of_a_dead_process_is_no_lock(tmp_path: Path) -> None:
    def hold() -> None:
        with locked(tmp_path / "c.csv"):
            time.sleep(60)

    pid = in_child(hold)
    until = time.monotonic() + 20
    while not (tmp_path / ".c.csv.lock").exists() and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with locked(tmp_path / "c.csv", patience=5):
        pass
    assert names(tmp_path) == []


@fault("no locks in the system (Windows)", "one after the other; an old lock is left behind")
def test_without_locks_of_the_system_the_file_itself_is_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(own_files, "fcntl", None)
    file = tmp_path / "c.csv"
    with (
        locked(file),
        pytest.raises(OSError, match="another process has been writing it"),
        locked(file, patience=0.1),
    ):
        pass
    (tmp_path / ".c.csv.lock").touch()
    os.utime(tmp_path / ".c.csv.lock", (0, 0))
    with locked(file, patience=0.1):
        write_whole(file, b"new")
    assert names(tmp_path) == ["c.csv"]


@posix
@fault("3 processes that apply 20 corrections each to one file", "all 60 are in it")
def test_marks_of_several_processes_are_all_kept(tmp_path: Path, record_property) -> None:
    file = tmp_path / "c.csv"

    def apply(k: int) -> None:
        for i in range(20):
            corrections = Corrections()
            corrections.mark(tmp_path / f"{k}_{i}.png", "remove", "cat")
            corrections.apply(file)

    pids = [in_child(lambda k=k: apply(k)) for k in range(3)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]
    record_property("seen", f"{len(read_corrections(file))} of 60")
    assert len(read_corrections(file)) == 60
    assert names(tmp_path) == ["c.csv"]


@fault("names and labels beyond ASCII, quotes, formulas, line ends", "Excel and csv read them")
def test_a_file_with_names_beyond_ascii_tells_excel_that_it_is_utf_8(tmp_path: Path) -> None:
    corrections = Corrections()
    corrections.mark(tmp_path / "größe.png", "relabel", "=é\r\n", '"')
    marks = corrections.marks
    content = corrections.apply(tmp_path / "c.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbffile,action,label,was\n")
    assert read_corrections(tmp_path / "c.csv") == marks
    corrections.mark(tmp_path / "b.png", "remove", "a")
    corrections.apply(tmp_path / "c.csv")
    assert (tmp_path / "c.csv").read_bytes().count(b"\xef\xbb\xbf") == 1
    corrections.mark(tmp_path / "b.png", "remove", "a")
    assert corrections.apply(tmp_path / "plain.csv").read_bytes().startswith(b"file,")


@fault("a label that is no text, one of 200,000 letters", "one line, the marks stay")
@pytest.mark.parametrize(
    ("label", "message"),
    [("\ud800", "cannot be written as UTF-8"), ("x" * 200_000, "field larger")],
)
def test_what_would_not_be_read_again_is_not_written(label, message, tmp_path: Path) -> None:
    corrections = Corrections()
    corrections.mark(tmp_path / "a.png", "relabel", "cat", label)
    with pytest.raises(ValueError, match=message) as caught:
        corrections.apply(tmp_path / "c.csv")
    one_line(caught.value)
    assert len(corrections.marks) == 1
    assert names(tmp_path) == []


@fault("another notebook adds corrections before an undo", "the file is left as it is")
def test_undo_takes_nothing_of_another_notebook(tmp_path: Path) -> None:
    one, other = Corrections(), Corrections()
    one.mark(tmp_path / "a.png", "remove", "cat")
    one.apply(tmp_path / "c.csv")
    other.mark(tmp_path / "b.png", "remove", "cat")
    other.apply(tmp_path / "c.csv")
    with pytest.raises(ValueError, match="was changed since it was written; it is left"):
        one.undo()
    assert len(read_corrections(tmp_path / "c.csv")) == 2


@fault("no home folder, a user who is unknown", "one line that says what to give")
def test_a_home_folder_that_is_not_known_is_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as without HOME and passwd
    corrections = Corrections()
    corrections.mark(tmp_path / "a.png", "remove", "cat")
    with pytest.raises(ValueError, match=r"home directory.*; give it in full"):
        corrections.apply("~/c.csv")
    assert len(corrections.marks) == 1


@posix
@pytest.mark.bulk
@fault("100 kill -9 in apply", "the file is whole, nothing applied is lost, nothing stays")
def test_kills_in_apply_leave_a_whole_file(tmp_path: Path, record_property) -> None:
    file, log = tmp_path / "c.csv", tmp_path / "log"
    log.mkdir()

    def work(k: int) -> None:
        for i in range(10**6):
            corrections = Corrections()
            corrections.mark(tmp_path / f"{k}_{i}.png", "remove", "cat")
            corrections.apply(file)
            (log / str(k)).write_text(str(i + 1))  # that many are written at least

    written = 0
    for k in range(100):
        pid = in_child(lambda k=k: work(k))
        time.sleep(0.005 + 0.0007 * k)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        text = (log / str(k)).read_text() if (log / str(k)).exists() else ""
        written += int(text or 0)
        there = len(read_corrections(file)) if file.exists() else 0
        assert there >= written
    last = Corrections()
    last.mark(tmp_path / "last.png", "remove", "cat")
    last.apply(file)
    assert names(tmp_path) == ["c.csv", "log"]
    record_property("seen", f"{written} applied, {len(read_corrections(file))} in the file")
