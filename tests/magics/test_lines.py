"""What a magic line can name, in functions too, and lines that cannot be read."""

from collections.abc import Iterator

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from torch import nn

from nbfinetune import Learner
from nbfinetune.data.corrections import Corrections

MAGICS = [
    "fine_tune", "fit_one_cycle", "fit_flat_cos", "lr_find", "pause", "resume", "stop", "freeze",
    "unfreeze", "freeze_to", "learner_summary", "runs", "confusion_matrix", "most_confused",
    "top_losses", "label_issues", "clean", "resume_run", "attach", "undo_fit", "networks",
]  # fmt: skip


@pytest.fixture
def ip(shell: InteractiveShell, loaders, mlp) -> Iterator[InteractiveShell]:
    """A shell with the magics, a learner called `learn`, and `make` for others."""

    def make() -> Learner:
        return Learner(loaders, nn.Linear(4, 2), device="cpu")

    shell.reset()
    shell.run_line_magic("load_ext", "nbfinetune")
    shell.push({"learn": make(), "make": make})
    yield shell
    shell.run_line_magic("unload_ext", "nbfinetune")


def returned(ip: InteractiveShell, code: str) -> object:
    """What the function `f` of a cell returns."""
    ip.run_cell(code).raise_error()
    ip.run_cell("result = f()").raise_error()
    return ip.user_ns["result"]


@pytest.mark.parametrize(
    "code",
    [
        """
def f():
    learn = make()
    %fit_one_cycle 1 1e-2
    return [learn]""",
        """
def f():
    mine = make()
    %fit_one_cycle 1 1e-2
    return [mine]""",
        """
def f():
    mine, other = make(), make()
    %fit_one_cycle 1 1e-2 -l mine
    return [mine]""",
        """
def f(learn=make()):
    def inner():
        def innermost():
            %fit_one_cycle 1 1e-2
        innermost()
    inner()
    return [learn]""",
        """
def f():
    learn = make()
    call = lambda: get_ipython().run_line_magic("fit_one_cycle", "1 1e-2")
    call()
    return [learn]""",
        """
def f():
    learners = [make(), make()]
    run = get_ipython().run_line_magic
    results = [run("fit_one_cycle", "1 1e-2") for learn in learners]
    return learners""",
        """
def f():
    learn = make()
    run = get_ipython().run_line_magic
    list(run("fit_one_cycle", "1 1e-2") for _ in range(1))
    return [learn]""",
        """
def f():
    done = []
    for learn in (make(), make()):
        %fit_one_cycle 1 1e-2
        done.append(learn)
    return done""",
        """
class Trainer:
    def run(self, learn):
        %time %fit_one_cycle 1 1e-2
        return [learn]
def f():
    return Trainer().run(make())""",
    ],
)
def test_a_learner_of_the_function_wins_over_a_global_one(ip, code: str) -> None:
    learners = returned(ip, code)
    assert [len(learn.recorder.runs) for learn in learners] == [1] * len(learners)
    assert ip.user_ns["learn"].recorder.runs == []


def test_a_function_without_a_learner_uses_the_global_one(ip) -> None:
    returned(ip, "def f():\n    x = 3\n    %fit_one_cycle 1 1e-2")
    assert len(ip.user_ns["learn"].recorder.runs) == 1


def test_a_variable_of_a_function_that_calls_is_not_in_scope(ip) -> None:
    """Only functions around are, as for names in Python."""
    code = "def g():\n    %fit_one_cycle 1\ndef f():\n    learn = make()\n    g()\n    return learn"
    assert returned(ip, code).recorder.runs == []
    assert len(ip.user_ns["learn"].recorder.runs) == 1


def test_two_learners_of_a_function_are_told_apart_by_name(ip) -> None:
    ip.run_cell("def f():\n    a, b = make(), make()\n    %freeze")
    with pytest.raises(UsageError, match="learners here: a, b; say which: -l a"):
        ip.user_ns["f"]()


@pytest.mark.parametrize(
    "code",
    [
        "def f():\n    n, rate = 2, 1e-4\n    %fit_flat_cos $n $rate\n    return learn",
        "def f():\n    n, rate = 2, 1e-4\n    %fit_flat_cos {n} rate\n    return learn",
        "def f():\n    low, rate = 1e-4, 1e-4\n    %fit_flat_cos 2 low:rate\n    return learn",
        """
def f():
    n, rate = 2, 1e-4
    def inner():
        %fit_flat_cos $n rate
    inner()
    return learn""",
        """
def f():
    n, rate = 2, 1e-4
    def inner():
        %fit_flat_cos {n} {rate}
    inner()
    return learn""",
    ],
)
def test_variables_of_the_function_fill_in_the_line(ip, code: str) -> None:
    ip.user_ns |= {"n": 1, "rate": 5e-3} if "inner" not in code else {}
    run = returned(ip, code).recorder.run
    assert len(run.rows) == 2
    assert run.lrs[0] == [1e-4]


def test_an_earlier_matrix_can_be_a_variable_of_the_function(ip, capsys) -> None:
    code = """
def f():
    learn = make()
    before = %confusion_matrix
    def inner():
        after = %confusion_matrix --vs before
        return after
    return before.interp, inner().interp"""
    first, second = returned(ip, code)
    assert first is second
    assert "since before: 0 fixed, 0 broken" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["1 '", '"', "-l 'learn"])
def test_an_open_quotation_mark_is_one_line(ip, line: str) -> None:
    message = r"a quotation mark is not closed in: .*; close it"
    for name in MAGICS:
        with pytest.raises(UsageError, match=message) as caught:
            ip.run_line_magic(name, line)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('--apply "bob\'s # 1.csv"', "bob's # 1.csv"),
        ("--apply bob's.csv # it's Bob's", "bob's.csv"),
        ("--apply '(a  b); c.csv'", "(a  b); c.csv"),
        ('--apply "cost $5 to $9.csv"  # don\'t', "cost $5 to $9.csv"),
        ("--apply \"עברית 'x'.csv\" ;", "עברית 'x'.csv"),
    ],
)
def test_a_quoted_file_name_is_taken_as_it_is(ip, tmp_path, monkeypatch, line, name) -> None:
    files = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        Corrections, "apply", lambda self, file: files.append(file) or tmp_path / file
    )
    ip.run_line_magic("clean", line)
    assert files == [name]


def test_an_apostrophe_in_a_comment_opens_nothing(ip) -> None:
    ip.run_line_magic("fit_one_cycle", "1 1e-3  # don't keep")
    assert len(ip.user_ns["learn"].recorder.runs) == 1


def test_every_magic_is_tried_here(ip) -> None:
    registry = ip.magics_manager.registry
    kinds = ("Training", "Interpretation", "Network", "Model", "History")
    ours = [f"{kind}Magics" for kind in kinds]
    assert sorted(MAGICS) == sorted(n for cls in ours for n in type(registry[cls]).magics["line"])
