"""Lines after a magic, put together by lot: each does its work, or ends in one line of ours."""

import random
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from nbfinetune import vision_learner

MAGICS = (
    *("fine_tune", "fit_one_cycle", "fit_flat_cos", "lr_find", "freeze", "unfreeze", "freeze_to"),
    *("runs", "learner_summary", "confusion_matrix", "most_confused", "top_losses", "label_issues"),
    *("clean", "undo_fit", "resume_run", "pause", "resume", "stop", "networks"),
)
WORDS = (
    *("1", "2", "0", "-1", "1.5", "1e-3", "3e-3", "1e999", "nan", "inf", "1e-6:1e-4", "1e-4:", ":"),
    *(
        "slice(1e-5,1e-3)",
        "slice(",
        "@",
        "@/10",
        "@nothing",
        "learn",
        "nothing",
        "x",
        "table",
        "''",
    ),
    *(
        '"',
        "'",
        "\\",
        "\u00e9\u4e2d",
        "\U0001f415",
        "\x00",
        "$HOME",
        "{learn}",
        "--",
        "-",
        "-h",
        "=",
    ),
    *("-l learn", "-l nothing", "-l", "--no-widgets", "--keep-best", "--bs 2", "--bs 0", "--bs x"),
    *(
        "--verify 0",
        "--verify -3",
        "--seeds 2",
        "--groups",
        "--num-it 12",
        "--num-it 0",
        "--wd nan",
    ),
    *("--apply", "--undo", "--vs nothing", "--order cluster", "--order x", "--figsize 3,3"),
    *("--figsize 0", "--figsize a,b", "--early-stopping 1", "--checkpoint off", "--list", "--k"),
    *("--freeze-epochs 1", "--freeze-epochs -1", "--pct-start 2", "--recipe x", "--recipe fastai"),
)
LONGEST = 700  # characters of a message


@pytest.fixture
def ip(shell, dls, tiny_net, tmp_path: Path, monkeypatch) -> Iterator[InteractiveShell]:
    monkeypatch.chdir(tmp_path)  # marks and files go there
    shell.reset()
    shell.run_line_magic("load_ext", "nbfinetune")
    learn = vision_learner(dls, tiny_net, device="cpu")
    shell.push({"learn": learn, "x": 3, "table": {"lr": 1e-3}})
    yield shell
    shell.run_line_magic("unload_ext", "nbfinetune")


def broken(ip: InteractiveShell, n: int, seed: int) -> tuple[list[str], Counter]:
    """What `n` lines raised that is not ours, and how often they worked or were refused."""
    rng, wrong, ended = random.Random(seed), [], Counter()
    for _ in range(n):
        magic = rng.choice(MAGICS)
        line = " ".join(rng.choices(WORDS, k=rng.randrange(5)))
        try:
            with warnings.catch_warnings(action="ignore"):
                ip.run_line_magic(magic, line)
            ended["done"] += 1
        except UsageError as error:
            ended["refused"] += 1
            if "\n" in str(error).strip() or len(str(error)) > LONGEST:
                wrong.append(f"%{magic} {line!r}: {error}")
        except BaseException as error:
            wrong.append(f"%{magic} {line!r}: {type(error).__name__}: {error}")
    return wrong, ended


def row(n: int, *marks: pytest.MarkDecorator) -> object:
    what = f"{n:,} lines of words by lot after magics"
    return pytest.param(n, marks=[pytest.mark.fault(what, "work, or end in one line"), *marks])


@pytest.mark.parametrize("n", [row(100), row(3000, pytest.mark.bulk)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_any_line_works_or_is_refused_in_one_line(n: int, ip, capsys, record_property) -> None:
    wrong, ended = broken(ip, n, n)
    record_property("seen", f"{ended['done']} done, {ended['refused']} refused")
    assert wrong == []
    assert ip.user_ns["learn"].control.running is False
