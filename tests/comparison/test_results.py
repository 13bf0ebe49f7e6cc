"""What was found in words, as a table and as a chart: known errors give known lines."""

from dataclasses import replace

import pytest
import torch

from nbfinetune.comparison.probe import ComparedNetwork
from nbfinetune.comparison.results import NetworkComparison, Skipped
from nbfinetune.history.verdicts import standard_error


def network(name: str, size: int, wrong: range, seconds: float, **rest) -> ComparedNetwork:
    """One that has these of 100 pictures wrong."""
    marks = torch.zeros(100, dtype=torch.bool)
    marks[list(wrong)] = True
    error = len(wrong) / 100
    how = {"loss": error, "n_params": 3_400_000, "licence": "", "wrong": marks} | rest
    return ComparedNetwork(name, size, error, standard_error(error, 100), seconds=seconds, **how)


SMALL = network("small", 160, range(36), 8.0)
LARGE = network("large", 224, range(16), 40.0, licence="mit")
NEAR = network("small", 224, range(17), 1234.5)


def comparison(*networks: ComparedNetwork, **changes) -> NetworkComparison:
    ordered = sorted(networks, key=lambda one: one.error)
    found = NetworkComparison(
        ordered, [], "", len(networks), False, "100 training pictures", ("dls", 224), "cpu", 1.0
    )
    return replace(found, **changes)


def test_the_difference_of_two_networks_is_that_of_the_same_pictures() -> None:
    # One picture of 100 differs: 0.01, with a standard error of sqrt(0.01 * 0.99 / 100).
    assert NEAR.above(LARGE) == pytest.approx((0.01, 0.00995), abs=1e-5)
    assert LARGE.above(LARGE) == (0.0, 0.0)
    assert SMALL.above(LARGE)[0] == pytest.approx(0.2)


def test_each_network_has_a_row_and_the_best_three_a_line_to_copy() -> None:
    found = comparison(SMALL, LARGE, NEAR, network("bad", 288, range(90), 0.1234))
    table = found.table()
    assert table.columns[:4] == ("network", "px", "error", "above the best")
    assert table.columns[4:] == ("CPU s for 1,000 pictures", "parameters", "licence")
    assert table.rows[0] == ("large", "224", "0.160 ± 0.037", "", "40.0", "3.4 M", "mit")
    assert table.rows[1][2:5] == ("0.170 ± 0.038", "+0.010 ± 0.010", "1,234")
    assert table.rows[3] == (
        *("bad", "288", "0.900 ± 0.030", "+0.740 ± 0.044", "0.123", "3.4 M", "not stated"),
    )
    assert found.lines == [
        'learn = vision_learner(dls, "large")  # 0.160 ± 0.037',
        'learn = vision_learner(dls, "small")  # 0.170 ± 0.038',
        'learn = vision_learner(dls.with_size(160), "small")  # 0.360 ± 0.048',
    ]
    assert repr(found).endswith("\n".join(found.lines))
    assert found.best is LARGE


@pytest.mark.parametrize(
    ("networks", "text"),
    [
        ([LARGE], ""),
        ([LARGE, SMALL], ", by more than a standard error"),
        # 0.01 is more than 0.00995.
        ([LARGE, NEAR], ", by more than a standard error"),
        (
            [LARGE, replace(LARGE, name="quick", seconds=4)],
            "; quick at 224 px is within a standard error of it, 4.00 against 40.0 CPU s",
        ),
        (
            [LARGE, replace(LARGE, name="slow", seconds=50)],
            "; slow at 224 px is within a standard error of it",
        ),
        (
            [LARGE, *(replace(LARGE, name=f"n{k}", seconds=k) for k in (3, 2, 9)), SMALL],
            "; 3 others are within a standard error of it, n2 at 224 px with 2.00 against 40.0 CPU "
            "s",
        ),
    ],
)
def test_the_verdict_names_what_may_be_as_good_and_is_quicker(networks, text: str) -> None:
    beginning = "large at 224 px has the lowest error, 0.160 ± 0.037"
    assert comparison(*networks).verdict == beginning + text


def test_what_was_skipped_is_a_row_and_a_size_is_named_where_others_were_done() -> None:
    gone = [Skipped("lost", None, "no <b>way</b>"), Skipped("vit", 160, "only 224 px")]
    found = comparison(SMALL, LARGE, skipped=gone, n_planned=6, stopped=True)
    assert found.table().title.startswith("2 of 6 networks and sizes on 100 training pictures")
    assert found.table().footer.endswith("error. stopped before all were done")
    assert found.table().rows[2:] == [
        ("skipped: lost: no <b>way</b>",),
        ("skipped: vit at 160 px: only 224 px",),
    ]
    assert "no &lt;b&gt;way" in found._repr_html_()
    every = [Skipped("lite", size, "needs packages") for size in (160, 224)]
    assert comparison(SMALL, LARGE, skipped=every).gaps == ["lite: needs packages"]


def test_nothing_done_is_said_and_has_no_best() -> None:
    found = comparison(stopped=True, n_planned=4)
    assert repr(found).splitlines()[0].startswith("0 of 4 networks and sizes")
    assert "stopped" in found._repr_html_()
    with pytest.raises(ValueError, match="no network was compared"):
        _ = found.best


def test_the_chart_has_errors_with_bars_over_time_and_says_them_in_words() -> None:
    picture = comparison(SMALL, LARGE, NEAR).plot()
    [ax] = picture.figure.axes
    assert (ax.get_xscale(), ax.get_xlabel()) == ("log", "CPU s for 1,000 pictures")
    assert ax.get_ylabel() == "error"
    large, small, ring = ax.lines
    assert (list(large.get_xdata()), list(large.get_ydata())) == ([40.0], [0.16])
    assert (list(small.get_xdata()), list(small.get_ydata())) == ([8.0, 1234.5], [0.36, 0.17])
    assert (list(ring.get_xdata()), list(ring.get_ydata())) == ([40.0], [0.16])
    bar = ax.collections[0].get_segments()[0]
    assert bar[:, 1].tolist() == pytest.approx([0.16 - 0.03666, 0.16 + 0.03666], abs=1e-4)
    assert sorted(text.get_text() for text in ax.texts) == ["160 px", "224 px", "224 px"]
    assert repr(picture).startswith(
        "errors over CPU s for 1,000 pictures: large at 224 px 0.160 ± 0.037, 40.0 s; small at"
    )
    html = picture._repr_html_()
    assert 'alt="errors over' in html
    assert "nbft-picture" in html  # which a dark theme turns dark


def test_many_networks_have_different_marks_and_a_gpu_its_own_unit() -> None:
    many = [network(f"n{k}", 224, range(10 + k), 1.0 + k) for k in range(7)]
    found = comparison(*many, device="cuda")
    *lines, _ = found.plot().figure.axes[0].lines
    looks = {(line.get_color(), line.get_marker()) for line in lines}
    assert len(looks) == 7
    assert found.table().columns[4] == "GPU s for 1,000 pictures"
    assert "GPU s" in found.plot().text


def test_networks_that_only_guess_are_not_recommended() -> None:
    blind = comparison(network("blind", 160, range(75), 8.0), guess=0.75)
    assert blind.verdict.startswith("none is better than a guess, whose error is 0.750")
    assert "lowest error" in comparison(LARGE, guess=0.75).verdict
