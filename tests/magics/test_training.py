import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from nbfinetune import Callback, FitResult, Learner
from nbfinetune.history.runs import Run
from nbfinetune.live.cell_errors import Interrupted
from nbfinetune.lr_finder import search
from nbfinetune.lr_finder.results import LRFindComparison, LRFindResult
from nbfinetune.magics.extension import _CLASSES, enable_widgets_in_colab
from nbfinetune.magics.rates import parse_lr

NAMES = [
    "attach", "clean", "cluster", "confusion_matrix", "fine_tune", "fit_flat_cos", "fit_one_cycle",
    "freeze", "freeze_to", "label_issues", "learner_summary", "lr_find", "most_confused",
    "networks", "pause", "resume", "resume_run", "runs", "stop", "top_losses", "undo_fit",
    "unfreeze",
]  # fmt: skip


@pytest.fixture
def ip(shell: InteractiveShell, learn: Learner) -> Iterator[InteractiveShell]:
    """A shell with the magics, and a learner called `learn`."""
    shell.reset()
    shell.run_line_magic("load_ext", "nbfinetune")
    shell.push({"learn": learn})
    yield shell
    shell.run_line_magic("unload_ext", "nbfinetune")


def test_loading_adds_these_magics_and_unloading_takes_them_away(shell) -> None:
    before = {kind: dict(names) for kind, names in shell.magics_manager.magics.items()}
    matchers = list(shell.Completer.custom_matchers)
    shell.run_line_magic("load_ext", "nbfinetune")
    added = set(shell.magics_manager.magics["line"]) - set(before["line"])
    assert sorted(added) == NAMES
    for name, function in before["line"].items():
        assert shell.magics_manager.magics["line"][name] == function
    shell.run_line_magic("unload_ext", "nbfinetune")
    assert shell.magics_manager.magics == before
    assert shell.Completer.custom_matchers == matchers


def test_a_magic_of_the_users_is_back_after_unloading(shell) -> None:
    def mine(line: str) -> str:
        return "mine"

    shell.register_magic_function(mine, magic_name="freeze")
    shell.run_line_magic("load_ext", "nbfinetune")
    shell.run_line_magic("unload_ext", "nbfinetune")
    assert shell.run_line_magic("freeze", "") == "mine"
    del shell.magics_manager.magics["line"]["freeze"]


def test_a_variable_of_the_users_wins_over_a_magic(ip) -> None:
    ip.run_cell("freeze = 42\nx = freeze")
    assert ip.user_ns["x"] == 42
    ip.run_cell("freeze")
    assert ip.user_ns["_"] == 42


@pytest.mark.parametrize(
    ("magic", "line", "epochs"),
    [
        ("fine_tune", "2 --freeze-epochs 1", 3),
        ("fine_tune", "2 1e-3 --freeze_epochs 1 --lr_mult 10 --no-keep-best", 3),
        ("fit_one_cycle", "2 1e-4:1e-2 --div-final 1e4 --moms 0.9,0.8,0.9 --wd 0.1", 2),
        ("fit_one_cycle", "3 --lr-max slice(1e-4, 1e-2) --start-epoch 2", 1),
        ("fit_flat_cos", "2 1e-3 --pct-start 0.5  # a comment", 2),
        ("fit_flat_cos", "3 1e-3 --keep-best", 3),
    ],
)
def test_a_magic_trains_and_returns_the_result(ip, capsys, magic, line, epochs) -> None:
    result = ip.run_line_magic(magic, line)
    assert isinstance(result, FitResult)
    assert len(result.rows) == epochs
    assert result.stages == tuple(ip.user_ns["learn"].recorder.runs)
    assert len(capsys.readouterr().out.splitlines()) == 1 + epochs + 2 * (magic == "fine_tune")


def test_an_option_stops_early(ip) -> None:
    ip.user_ns["learn"].train_bn = False  # else its statistics move at any rate
    assert len(ip.run_line_magic("fit_one_cycle", "9 1e-12 --early-stopping 2").rows) < 9
    stages = ip.run_line_magic(
        "fine_tune", "9 1e-12 --freeze-epochs 9 --lr-mult 100 --early_stopping 1"
    ).stages
    assert all(len(stage.rows) < 9 and stage.ended for stage in stages)
    with pytest.raises(UsageError, match="early-stopping is 0; give epochs to wait, from 1 up"):
        ip.run_line_magic("fit_one_cycle", "1 --early-stopping 0")


def test_the_arguments_reach_the_learner(ip) -> None:
    calls = []

    class Fake(Learner):
        def fit_one_cycle(self, *args, **kwargs) -> FitResult:
            calls.append((args, kwargs))
            return FitResult((Run("fit_one_cycle", 1, 1, []),), None)

    ip.user_ns["learn"].__class__ = Fake
    ip.user_ns["lr"] = slice(1e-6, 1e-4)
    ip.run_line_magic("fit_one_cycle", "3")
    ip.run_line_magic("fit_one_cycle", "3 lr --div 10 --div_final 1e3 --pct-start 0.1 --wd 0.2")
    for _, kwargs in calls:
        kwargs.pop("cbs")
        assert not kwargs.pop("show")  # the magic does
    given = {"lr_max": slice(1e-6, 1e-4), "div": 10, "div_final": 1e3, "pct_start": 0.1, "wd": 0.2}
    # The defaults are those of the method: the magic has none of its own.
    assert calls == [((3,), {}), ((3,), given)]


def test_a_semicolon_asks_for_no_result(ip) -> None:
    assert ip.run_line_magic("fit_one_cycle", "1 1e-3;") is None
    assert ip.run_line_magic("learner_summary", ";") is None


def test_freezing_says_what_trains_or_that_nothing_changed(ip, capsys) -> None:
    for magic, line in (("freeze", ""), ("freeze", ""), ("freeze_to", "-2"), ("unfreeze", "")):
        ip.run_line_magic(magic, line)
    assert capsys.readouterr().out.splitlines() == [
        "2 of 3 layer groups are frozen, 22 of 77 parameters train",
        "no change in what trains: 2 of 3 layer groups are frozen, 22 of 77 parameters train",
        "1 of 3 layer groups are frozen, 52 of 77 parameters train",
        "0 of 3 layer groups are frozen, 77 of 77 parameters train",
    ]


def test_runs_lists_all_and_shows_one_again(ip) -> None:
    ip.run_line_magic("fit_flat_cos", "1 1e-3 --no-widgets;")
    table = ip.run_line_magic("runs", "")
    assert table.columns[:5] == ("run", "when", "method", "trained", "rate")
    assert table.rows[0][:1] + table.rows[0][2:5] == ("1", "fit_flat_cos", "all layers", "1.0e-3")
    assert "<img" in ip.run_line_magic("runs", "1")._repr_html_()
    assert ip.run_line_magic("runs", ";") is None
    with pytest.raises(UsageError, match="there is no run 2; %runs lists 1"):
        ip.run_line_magic("runs", "2")


def test_learner_summary_shows_the_groups(ip) -> None:
    assert "layer group" in repr(ip.run_line_magic("learner_summary", ""))


def test_the_only_learner_is_found_whatever_its_name(ip, learn: Learner) -> None:
    ip.user_ns["pets"] = ip.user_ns["also_pets"] = ip.user_ns.pop("learn")
    ip.run_line_magic("freeze", "")
    assert learn.frozen == 2


def test_a_learner_can_be_named(ip, loaders, mlp) -> None:
    ip.user_ns["other"] = Learner(loaders, mlp, groups=[[part] for part in mlp], device="cpu")
    ip.run_line_magic("freeze", "-l other")
    assert (ip.user_ns["learn"].frozen, ip.user_ns["other"].frozen) == (0, 2)


def test_without_a_single_learner_the_candidates_are_listed(ip, loaders, mlp) -> None:
    ip.user_ns["a"] = ip.user_ns.pop("learn")
    ip.user_ns["b"] = Learner(loaders, mlp, device="cpu")
    with pytest.raises(UsageError, match="learners here: a, b; say which: -l a"):
        ip.run_line_magic("freeze", "")
    del ip.user_ns["a"], ip.user_ns["b"]
    with pytest.raises(UsageError, match="there is no learner here; make one: learn = vision_lea"):
        ip.run_line_magic("freeze", "")


@pytest.mark.parametrize(
    ("magic", "line", "message"),
    [
        ("fine_tune", "", "the following arguments are required: epochs"),
        ("fine_tune", "x", "argument epochs: invalid int value: 'x'"),
        ("fine_tune", "0", "epochs is 0; it must be a whole number from 1 up"),
        ("fine_tune", "1 --freeze-epochs -1", "freeze_epochs is -1"),
        ("fine_tune", "1 --frozen 2", "%fine_tune has no option --frozen; it has --base-lr"),
        ("fine_tune", "1 nolr", "no variable 'nolr'; learning rate 'nolr': give 3e-3, 1e-6:1e-4"),
        ("fine_tune", "1 1e-3 --base-lr 1e-4", "two learning rates, 1e-3 and 1e-4; give one"),
        ("fine_tune", "1 text", "base_lr holds 'abc', which is no number"),
        ("fit_one_cycle", "1 1e-3x", "learning rate '1e-3x': give 3e-3"),
        ("fit_one_cycle", "1 1:2:3", "learning rate '1:2:3': give 3e-3"),
        ("fit_one_cycle", "1 -1", "lr_max holds -1.0; a learning rate is positive"),
        ("fit_one_cycle", "1 --moms 0.9", "moms '0.9': give three numbers"),
        ("fit_one_cycle", "1 --pct-start 7", "pct_start is 7.0; it must lie in"),
        ("fit_flat_cos", "2 --start-epoch 2", "start_epoch is 2; it must be in 0 to 1"),
        ("freeze", "-l nope", "no variable 'nope'; learners here: learn"),
        ("freeze", "-l text", "'text' is a str, not a Learner; learners here: learn"),
        ("freeze_to", "5", "the model has 3 layer groups; give a number from -3 to 2"),
    ],
)
def test_bad_input_gets_one_clear_line_and_changes_nothing(ip, magic, line, message) -> None:
    ip.user_ns["text"] = "abc"
    with pytest.raises(UsageError, match=message) as caught:
        ip.run_line_magic(magic, line)
    assert type(caught.value) is UsageError  # a subclass would show a traceback
    assert "\n" not in str(caught.value)
    assert ip.user_ns["learn"].recorder.runs == []
    assert ip.user_ns["learn"].frozen == 0


def test_an_error_of_the_training_itself_keeps_its_traceback(ip) -> None:
    class Broken(Callback):
        def after_batch(self, learn: Learner) -> None:
            raise ValueError("of the user's own")

    ip.user_ns["learn"].cbs.append(Broken())
    with pytest.raises(ValueError, match="of the user's own"):
        ip.run_line_magic("fit_one_cycle", "1")


def test_an_interrupt_ends_the_cell_with_one_line(ip) -> None:
    class Interrupt(Callback):
        def after_batch(self, learn: Learner) -> None:
            if learn.iter == 2:
                raise KeyboardInterrupt

    ip.user_ns["learn"].cbs.append(Interrupt())
    with pytest.raises(Interrupted) as caught:
        ip.run_line_magic("fit_one_cycle", "2")
    line = "interrupted in epoch 1 of 2 after 3 steps; the weights are those of the last step"
    assert caught.value._render_traceback_() == [line]
    assert isinstance(caught.value, KeyboardInterrupt)


def test_an_interrupt_before_the_first_step_is_told_as_such(ip, monkeypatch) -> None:
    def interrupt(*args, **kwargs) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nbfinetune.training.fitting.loop.run", interrupt)
    with pytest.raises(Interrupted, match="interrupted before it began"):
        ip.run_line_magic("fit_one_cycle", "1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3e-3", 3e-3),
        ("1e-6:1e-4", slice(1e-6, 1e-4)),
        ("slice(1e-6,1e-4)", slice(1e-6, 1e-4)),
        ("slice(1e-4)", slice(1e-4)),
        ("slice(None,1e-4)", slice(1e-4)),
        ("best", 7e-3),
        ("low:best", slice(7e-5, 7e-3)),
        ("rates", [1e-5, 1e-4, 1e-3]),
    ],
)
def test_a_learning_rate_can_be_written_so(text: str, expected) -> None:
    names = {"best": 7e-3, "low": 7e-5, "rates": [1e-5, 1e-4, 1e-3]}
    assert parse_lr(text, names) == expected


@pytest.fixture
def found(learn: Learner, monkeypatch) -> LRFindResult:
    """What every %lr_find gives: valley 2e-3 and minimum 8e-3."""
    suggestions = {"valley": 2e-3, "minimum": 8e-3}
    result = LRFindResult([1e-3], [1.0], [1.0], suggestions, "high", "it falls", 1e-3, 1e-2)
    monkeypatch.setattr(search, "_found", search_that_finds(result))
    return result


def search_that_finds(result: object) -> Callable:
    def found(learn: Learner, *options, cbs: list[Callback]) -> object:
        for cb in cbs:  # the screen sees it begin
            cb.before_fit(learn)
        return result

    return found


def test_lr_find_sets_the_rate_of_the_next_run_and_says_so(ip, learn, found, capsys) -> None:
    assert ip.run_line_magic("lr_find", "") is found
    assert learn.lr == 2e-3
    result = ip.run_line_magic("fit_flat_cos", "1")
    assert result.stages[0].lrs[0] == [2e-3] * 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["next run: 2.0e-3 (valley)", "lr 2.0e-3, as lr_find found"]
    learn.freeze()
    capsys.readouterr()
    ip.run_line_magic("lr_find", "")  # for the head, which trains first
    ip.run_line_magic("fine_tune", "1 --freeze-epochs 1")
    assert "base_lr 2.0e-3, as lr_find found" in capsys.readouterr().out
    learn.lr = 5e-3  # chosen by hand since
    assert ip.run_line_magic("fit_flat_cos", "1").stages[0].lrs[0] == [5e-3] * 3
    assert "found" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "first", "head"),
    [
        ("@", 2e-3, 2e-3),
        ("@/10", 2e-4, 2e-4),
        ("@minimum", 8e-3, 8e-3),
        ("@minimum/4", 2e-3, 2e-3),
        ("@/100:@", 2e-5, 2e-3),
        ("slice(@/100, @minimum)", 2e-5, 8e-3),
    ],
)
def test_at_is_what_lr_find_found(ip, found, text: str, first: float, head: float) -> None:
    ip.run_line_magic("lr_find", "")
    lrs = ip.run_line_magic("fit_flat_cos", f"1 {text}").stages[0].lrs[0]
    assert [lrs[0], lrs[-1]] == pytest.approx([first, head])


def test_rates_found_for_each_group_are_used_so(ip, learn: Learner, monkeypatch, capsys) -> None:
    rates = {"body 0": 1e-5, "body 1": 1e-4, "head": 4e-3}
    results = {
        name: LRFindResult([lr], [1.0], [1.0], {"valley": lr}, "high", "it falls", lr, lr)
        for name, lr in rates.items()
    }
    monkeypatch.setattr(search, "_found", search_that_finds(LRFindComparison(results)))
    ip.run_line_magic("lr_find", "--groups")
    assert learn.lr == [1e-5, 1e-4, 4e-3]
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "3 sweeps of 100 steps: 300 steps at most",
        "next run: 1.0e-5, 1.0e-4, 4.0e-3 (body 0, body 1, head)",
    ]
    assert ip.run_line_magic("fit_flat_cos", "1").stages[0].lrs[0] == [1e-5, 1e-4, 4e-3]
    tenth = ip.run_line_magic("fit_flat_cos", "1 @/10").stages[0].lrs[0]
    assert tenth == pytest.approx([1e-6, 1e-5, 4e-4])
    result = ip.run_line_magic("fine_tune", "1 --freeze-epochs 1")
    assert "base_lr 1.0e-5, 1.0e-4, 4.0e-3, as lr_find found" in capsys.readouterr().out
    assert 4e-6 < max(step[0] for step in result.stages[1].lrs) <= 5e-6  # half of it
    with pytest.raises(UsageError, match="write @ or @/10"):
        ip.run_line_magic("fit_flat_cos", "1 @valley")


@pytest.fixture
def found_for_groups(found, monkeypatch) -> LRFindResult:
    """What every %lr_find gives: 1e-4 for the first layer group, ten times that for the head."""
    result = replace(found, verified=1e-4, lr_mult=10.0)
    monkeypatch.setattr(search, "_found", search_that_finds(result))
    return result


def test_a_rate_found_with_one_for_the_head_is_used_so(ip, learn, found_for_groups, capsys) -> None:
    ip.run_line_magic("lr_find", "")
    assert learn.lr == slice(1e-4, 1e-3)
    assert capsys.readouterr().out == "next run: 1.0e-4 to 1.0e-3 (verified)\n"
    for text, head in (("", 1e-3), (" @", 1e-3), (" @/10", 1e-4), (" @verified", 1e-4)):
        assert ip.run_line_magic("fit_flat_cos", f"1{text}").stages[0].lrs[0][-1] == (
            pytest.approx(head)
        )
    with pytest.raises(UsageError, match=r"found 1.0e-4 to 1.0e-3: write @ or @/10"):
        ip.run_line_magic("fit_flat_cos", "1 @/100:@")


def test_the_marker_keeps_the_heads_rate_over_that_of_the_body(
    ip, learn, found_for_groups, monkeypatch
) -> None:
    monkeypatch.setattr("nbfinetune.live.training_runs.kernel_runs", lambda: True)
    monkeypatch.setattr("nbfinetune.live.screens.wait_until_rendered", lambda status, pump: True)
    ip.run_line_magic("lr_find", "")
    [screen] = ip.magics_manager.registry["TrainingMagics"].training_runs.plots.values()
    assert screen.plot.lr == 1e-4
    assert screen.plot.status.text.startswith("next run: 1.0e-4 to 1.0e-3 (suggested rate: ver")
    screen.plot._handle.set_state({"value": 3e-4})
    assert learn.lr == slice(3e-4, pytest.approx(3e-3))


def test_at_needs_a_search_and_a_suggestion_of_it(ip, learn: Learner) -> None:
    with pytest.raises(UsageError, match="'@' is what %lr_find found, but it was not run for"):
        ip.run_line_magic("fit_flat_cos", "1 @")
    ip.run_line_magic("lr_find", "--num-it 6 --suggest valley,steep")
    with pytest.raises(UsageError, match="'@': %lr_find found no rate: too short"):
        ip.run_line_magic("fit_flat_cos", "1 @")


def test_an_unknown_suggestion_after_at_is_refused(ip, found) -> None:
    ip.run_line_magic("lr_find", "")
    known = "bracket, valley, slide, minimum, steep"
    with pytest.raises(UsageError, match=f"'@best': %lr_find suggests {known}"):
        ip.run_line_magic("fit_flat_cos", "1 @best")


def test_at_takes_a_suggestion_that_was_not_asked_for(ip, learn: Learner) -> None:
    [valley] = learn.lr_find(1e-4, 1, suggest="valley")
    found = ip.run_line_magic("lr_find", "--start-lr 1e-4 --end-lr 1")
    assert list(found.suggestions) == ["bracket"]
    assert found.rate("valley") == valley
    lrs = ip.run_line_magic("fit_flat_cos", "1 @valley").stages[0].lrs[0]
    assert lrs == [valley] * 3


def test_without_confidence_the_rate_stays_as_it_was(ip, learn: Learner, capsys) -> None:
    result = ip.run_line_magic("lr_find", "--num-it 6")
    assert result.lr is None
    assert learn.lr == 1e-3
    line = "next run: 1.0e-3 (no suggestion; the default, of fine_tune 2.0e-3)"
    assert capsys.readouterr().out == f"{line}\n"
    ip.run_line_magic("fit_flat_cos", "1")
    assert "found" not in capsys.readouterr().out


def test_a_rate_found_before_is_kept_by_a_search_without_confidence(
    ip, learn, found, capsys, monkeypatch
) -> None:
    learn.freeze()
    ip.run_line_magic("lr_find", "")
    nothing = replace(found, confidence="none")
    monkeypatch.setattr(search, "_found", search_that_finds(nothing))
    capsys.readouterr()
    ip.run_line_magic("lr_find", "")
    line = "next run: 2.0e-3 (no suggestion; as lr_find found)\n"
    assert capsys.readouterr().out == line
    result = ip.run_line_magic("fine_tune", "1 --freeze-epochs 1")
    assert capsys.readouterr().out.startswith("base_lr 2.0e-3, as lr_find found")
    assert max(step[-1] for step in result.stages[0].lrs) == pytest.approx(2e-3, rel=0.1)


def test_the_cost_of_a_larger_search_is_said_first(ip, found, capsys) -> None:
    ip.run_line_magic("lr_find", "--seeds 2 --verify 3 --num-it 50")
    line = "2 sweeps of 50 steps, then 3 short runs of 40 steps, each with a validation: 220 steps"
    assert capsys.readouterr().out.startswith(line)


def test_the_options_of_lr_find_reach_it(ip) -> None:
    line = "--start-lr 1e-5 --end-lr 1 --num_it 40 --no-stop-div --suggest steep,minimum"
    result = ip.run_line_magic("lr_find", line)
    assert len(result.lrs) == 40
    assert result.lrs[0] == 1e-5
    assert list(result.suggestions) == ["steep", "minimum"]
    result = ip.run_line_magic("lr_find", "--num-it 40 --seeds 2 --verify 2")
    assert (len(result.sweeps), len(result.trials)) == (2, 2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--num-it 3", "num_it is 3; it must be a whole number from 6 up"),
        (
            "--suggest best",
            "no suggestion 'best'; there are bracket, valley, slide, minimum, steep",
        ),
        ("--start-lr 1 --end-lr 0.1", "start_lr 1.0 must be positive and below end_lr 0.1"),
    ],
)
def test_bad_options_of_lr_find_get_one_line(ip, line: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ip.run_line_magic("lr_find", line)


@pytest.mark.parametrize(
    ("error", "shown"), [(KeyboardInterrupt, Interrupted), (ValueError, ValueError)]
)
def test_an_error_within_the_search_is_shown_as_it_is(ip, loaders, error, shown) -> None:
    class Broken(list):
        def __iter__(self):
            yield self[0]
            raise error("of the data")

    loaders.train = Broken(loaders.train)
    with pytest.raises(shown) as caught:
        ip.run_line_magic("lr_find", "")
    text = "interrupted; nothing was changed" if shown is Interrupted else "of the data"
    assert str(caught.value) == text


@pytest.mark.parametrize("name", NAMES)
def test_every_magic_has_a_sentence_and_two_examples(name: str) -> None:
    owner = next(cls for cls in _CLASSES if name in vars(cls))
    text = getattr(owner, name).__doc__
    assert f"%{name}" in text
    examples = text[text.index("Examples") :].split("\n\n")[0]
    assert examples.count(f"%{name}") == 2


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_magic_is_words_alone(name: str) -> None:
    """A % that is not doubled prints the dictionary of the option."""
    owner = next(cls for cls in _CLASSES if hasattr(cls, name))
    text = getattr(owner, name).__doc__
    assert "{'" not in text
    assert "%%" not in text


def test_an_unknown_option_names_the_nearest_and_all(ip) -> None:
    with pytest.raises(
        UsageError, match=r"%lr_find has no option --nums; did you mean --num-it\? "
    ):
        ip.run_line_magic("lr_find", "--nums 10")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("%fine_tune 3 --fr", {"--freeze-epochs"}),
        ("%fine_tune 3 --l", {"--lr-mult", "--learner"}),
        ("%fit_flat_cos --p", {"--pct-start"}),
        ("%fine_tune 3 -l le", {"learn"}),
        ("  %freeze --learner ", {"learn"}),
        ("%freeze --learner=le", {"learn"}),
        ("r = %lr_find --su", {"--suggest"}),
    ],
)
def test_options_and_learners_complete_with_tab(ip, typed: str, expected: set[str]) -> None:
    assert set(completed(ip, typed)) == expected


def test_completion_of_other_lines_is_left_alone(ip) -> None:
    ip.user_ns["learner_of_mine"] = 1
    assert completed(ip, "x = learner_of") == ["learner_of_mine"]
    assert "%timeit" in completed(ip, "%timei")
    assert "%fine_tune" in completed(ip, "%fine_")


def completed(ip: InteractiveShell, typed: str) -> list[str]:
    """What Tab offers, in a kernel as in a terminal."""
    ip.Completer.use_jedi = False
    with provisionalcompleter():
        return [c.text for c in ip.Completer.completions(typed, len(typed))]


class Hold(Callback):
    """Keeps a run after its third batch until it is let go."""

    def __init__(self) -> None:
        self.held, self.go = threading.Event(), threading.Event()

    def after_batch(self, learn: Learner) -> None:
        if learn.training and len(learn.recorder.run.lrs) == 3:
            self.held.set()
            self.go.wait(30)


@pytest.fixture
def hold(learn: Learner) -> Iterator[Hold]:
    hold = Hold()
    learn.cbs.append(hold)
    yield hold
    hold.go.set()
    while learn.control.running:
        time.sleep(0.01)


def test_a_run_in_the_background_gives_the_cell_back(ip, learn: Learner, hold, capsys) -> None:
    assert ip.run_line_magic("fit_flat_cos", "4 1e-3 --bg") is None
    assert "training in the background: %pause, %resume, %stop" in capsys.readouterr().out
    assert hold.held.wait(30)
    assert learn.control.running
    with pytest.raises(UsageError, match="trains in the background already; %stop ends that"):
        ip.run_line_magic("fit_flat_cos", "1 1e-3 --bg")
    with pytest.raises(RuntimeError, match="this learner is training in the background"):
        learn.validate()
    ip.run_line_magic("stop", "")
    hold.go.set()
    ip.run_line_magic("fit_flat_cos", "1 1e-3")  # waits for it
    first, second = learn.recorder.runs
    assert (first.status, len(first.losses)) == ("stopped", 4)  # held where it looks no more
    assert second.status == "finished"


def test_a_run_in_the_background_is_paused_and_resumed(ip, learn: Learner, hold) -> None:
    ip.run_line_magic("fit_flat_cos", "4 1e-3 --bg")
    assert hold.held.wait(30)
    ip.run_line_magic("pause", "")
    hold.go.set()
    while "paused" not in [what for _, what in learn.recorder.run.events]:
        time.sleep(0.01)
    ip.run_line_magic("resume", "")
    ip.run_line_magic("freeze", "")  # waits
    assert learn.recorder.run.status == "finished"


def test_bad_arguments_of_a_background_run_end_the_cell(ip, learn: Learner) -> None:
    with pytest.raises(UsageError, match="n_epoch is 0; it must be a whole number from 1 up"):
        ip.run_line_magic("fit_flat_cos", "0 1e-3 --bg")
    assert not learn.control.running


@pytest.mark.parametrize("magic", ["stop", "pause", "resume"])
def test_there_must_be_a_run_to_steer(ip, magic: str) -> None:
    with pytest.raises(UsageError, match=f"%{magic}: this learner is not training"):
        ip.run_line_magic(magic, "")


def test_the_result_of_a_search_on_the_screen_is_not_shown_twice(ip, found) -> None:
    magics = ip.magics_manager.registry["TrainingMagics"]
    format_value = ip.display_formatter.format
    assert "text/html" in format_value(found)[0]
    magics.display_hook.note(found)
    assert format_value(found) == ({}, {})  # the value of the cell that showed it
    assert "text/html" in format_value(found)[0]  # asked for again
    magics.display_hook.note(found)
    ip.execution_count += 1
    assert "text/html" in format_value(found)[0]  # in another cell


@pytest.mark.parametrize("text", ["@/0", "@valley/0", "1e-5:@/0"])
def test_a_rate_cannot_be_divided_by_nothing(ip, found, text: str) -> None:
    ip.run_line_magic("lr_find", "")
    with pytest.raises(UsageError, match="give 3e-3"):
        ip.run_line_magic("fit_flat_cos", f"1 {text}")


def test_a_background_run_that_fails_says_why(ip, learn: Learner, capsys) -> None:
    class Broken(Callback):
        def after_batch(self, learn: Learner) -> None:
            if learn.training and learn.iter == 2:
                raise OSError("disk")

    learn.cbs.append(Broken())
    ip.run_line_magic("fit_flat_cos", "1 1e-3 --bg")
    while learn.control.running or "failed" not in (said := capsys.readouterr()).out:
        time.sleep(0.05)
    assert "failed: OSError: disk" in said.out


@pytest.mark.parametrize("line", ["--start-lr 0", "--start-lr 1 --end-lr 0.1", "--num-it 3"])
def test_bad_options_get_one_line_on_live_screens_too(ip, line: str, monkeypatch) -> None:
    monkeypatch.setattr("nbfinetune.live.training_runs.kernel_runs", lambda: True)
    with pytest.raises(UsageError):
        ip.run_line_magic("lr_find", line)


def test_a_refused_search_leaves_the_plot_of_the_last_one(ip, learn: Learner, monkeypatch) -> None:
    monkeypatch.setattr("nbfinetune.live.training_runs.kernel_runs", lambda: True)
    monkeypatch.setattr("nbfinetune.live.screens.wait_until_rendered", lambda status, pump: True)
    ip.run_line_magic("lr_find", "--verify 0")
    [screen] = ip.magics_manager.registry["TrainingMagics"].training_runs.plots.values()
    with pytest.raises(UsageError, match="num_it is 3"):
        ip.run_line_magic("lr_find", "--num-it 3")
    screen.plot._handle.set_state({"value": 4e-3})
    assert learn.lr == 4e-3
    ip.run_line_magic("lr_find", "")
    assert screen.plot.comm is None  # another has taken its place


def test_rates_of_the_wrong_number_get_one_line_when_they_are_set(ip, learn: Learner) -> None:
    before = learn.lr
    with pytest.raises(ValueError, match="lr has 2 values but the model has 3 layer groups"):
        learn.lr = [1e-3, 1e-2]
    assert learn.lr == before


def test_a_changed_model_gets_one_line_before_a_search(ip, learn: Learner) -> None:
    learn.model[2] = type(learn.model[2])(5, 2)
    with pytest.raises(UsageError, match=r"parameter '2.weight' is in no layer group; the model"):
        ip.run_line_magic("lr_find", "")
    assert learn.recorder.runs == []


def test_a_magic_in_another_shell_waits_for_a_cell_no_longer_than_its_run(ip, learn, hold) -> None:
    """The thread of a cell lives on after its run."""
    done = threading.Event()

    def cell() -> None:
        learn.fit(2, 1e-3)
        done.wait(30)

    thread = threading.Thread(target=cell)
    thread.start()
    assert hold.held.wait(30)
    hold.go.set()
    ip.run_line_magic("freeze", "")
    assert learn.frozen == 2
    done.set()
    thread.join()


def test_a_plot_does_not_keep_its_learner_in_memory(ip, loaders, mlp, monkeypatch) -> None:
    monkeypatch.setattr("nbfinetune.live.training_runs.kernel_runs", lambda: True)
    monkeypatch.setattr("nbfinetune.live.screens._RENDER_TIMEOUT", 0.0)
    ip.user_ns["other"] = Learner(loaders, mlp, device="cpu")
    ip.run_line_magic("lr_find", "-l other;")
    gone = weakref.ref(ip.user_ns.pop("other"))
    gc.collect()
    assert gone() is None


def test_colab_is_asked_to_show_widgets(monkeypatch) -> None:
    asked = []
    output = SimpleNamespace(enable_custom_widget_manager=lambda: asked.append(True))
    enable_widgets_in_colab()
    assert asked == []
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace(output=output))
    enable_widgets_in_colab()
    assert asked == [True]
