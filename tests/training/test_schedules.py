"""Known values: fastai 2.8.12's, and closed forms."""

import pytest

from nbfinetune.training import schedules

LR = {
    0: 1.2e-4, 0.05: 3.950155e-4, 0.125: 1.56e-3, 0.25: 3e-3, 0.3: 2.967222e-3, 0.5: 2.250007e-3,
    0.625: 1.500015e-3, 0.75: 7.500224e-4, 0.9: 1.297106e-4, 0.99: 1.345739e-6, 1: 3e-8,
}  # fmt: skip
MOM = {
    0: 0.95, 0.05: 0.940451, 0.125: 0.9, 0.25: 0.85, 0.3: 0.851093, 0.5: 0.875, 0.625: 0.9,
    0.75: 0.925, 0.9: 0.945677, 0.99: 0.949956, 1: 0.95,
}  # fmt: skip
HEAD = {
    0: 8e-5,
    0.25: 3.665841e-4,
    0.5: 1.055231e-3,
    0.75: 1.734785e-3,
    0.99: 2e-3,
    0.995: 1.00001e-3,
}
ALL = {0: 2e-4, 0.15: 6e-4, 0.3: 1e-3, 0.5: 8.117468e-4, 0.65: 5.00005e-4, 0.9: 4.952511e-5}
FLAT = {0.1: 1e-3, 0.75: 1e-3, 0.8: 9.045094e-4, 0.875: 5.00005e-4, 0.9: 3.454982e-4}
SGDR = {0: 1e-2, 1 / 14: 5e-3, 1 / 7: 1e-2, 0.2: 9.0450850e-3, 0.5: 9.619398e-3}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (schedules.one_cycle(3e-3 / 25, 3e-3, 3e-3 / 1e5, 0.25), LR),
        (schedules.one_cycle(0.95, 0.85, 0.95, 0.25), MOM),
        (schedules.one_cycle(2e-3 / 25, 2e-3, 2e-3 / 1e5, 0.99), HEAD),
        (schedules.one_cycle(1e-3 / 5, 1e-3, 1e-3 / 1e5, 0.3), ALL),
        (schedules.flat_cos(1e-3, 1e-3 / 1e5, 0.75), FLAT),
        (schedules.sgdr(1e-2, 3, 2), SGDR),
    ],
    ids=["one_cycle lr", "one_cycle mom", "fine_tune head", "fine_tune all", "flat_cos", "sgdr"],
)
def test_schedules_have_the_values_of_fastai(schedule, expected: dict[float, float]) -> None:
    assert [schedule(p) for p in expected] == pytest.approx(list(expected.values()), rel=1e-5)


@pytest.mark.parametrize("name", ["one_cycle_lr", "mom"])
def test_one_cycle_equals_fastai_at_41_points(golden: dict, name: str) -> None:
    pct, start, middle, end = golden["schedules"][name]["args"]
    schedule = schedules.one_cycle(start, middle, end, pct)
    values = [schedule(p) for p in golden["schedules"][name]["pos"]]
    assert values == pytest.approx(golden["schedules"][name]["val"], rel=1e-5)


def test_one_cycle_of_20_steps_peaks_at_the_sixth_and_is_not_torchs() -> None:
    schedule = schedules.one_cycle(1.2e-4, 3e-3, 3e-8, 0.25)
    lrs = [schedule(i / 20) for i in range(20)]
    first = [1.2e-4, 3.950155e-4, 1.115016e-3, 2.004984e-3, 2.724984e-3, 3e-3]
    assert lrs[:6] == pytest.approx(first, rel=1e-5)
    assert lrs[19] == pytest.approx(3.280827e-5, rel=1e-5)
    assert lrs[1] != pytest.approx(5.417662e-4, rel=0.1)  # torch's OneCycleLR


def test_progress_beyond_the_end_stays_at_the_end() -> None:
    schedule = schedules.one_cycle(1.2e-4, 3e-3, 3e-8, 0.25)
    assert schedule(1.05) == schedule(1.0) == pytest.approx(3e-8)  # fastai's cosine rises again
    assert schedule(-0.1) == schedule(0.0) == pytest.approx(1.2e-4)


def test_one_cycle_may_only_rise_or_only_fall() -> None:
    falls, rises = (schedules.one_cycle(1.0, 2.0, 0.5, pct) for pct in (0.0, 1.0))
    assert [falls(p) for p in (0, 0.5)] == pytest.approx([2.0, 1.25])
    assert [rises(p) for p in (0, 0.5)] == pytest.approx([1.0, 1.5])


@pytest.mark.parametrize(
    ("args", "epochs"), [((3, 1, 2), 7), ((2, 2, 2), 6), ((3, 1, 3), 13), ((3, 2, 1), 6)]
)
def test_sgdr_takes_these_epochs(args: tuple[int, int, int], epochs: int) -> None:
    assert schedules.sgdr_epochs(*args) == epochs


def test_sgdr_allows_equal_cycles() -> None:
    schedule = schedules.sgdr(1.0, 2, 1)  # ZeroDivisionError in fastai
    assert [schedule(p) for p in (0, 0.25, 0.5, 0.75)] == pytest.approx([1, 0.5, 1, 0.5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedules.one_cycle(1, 2, 3, 1.5), "pct_start is 1.5; it must lie in"),
        (lambda: schedules.flat_cos(1, 2, -1), "pct_start is -1; it must lie in"),
        (lambda: schedules.chain([0.5], [schedules.flat(1)]), "sum to 1"),
        (lambda: schedules.chain([1.0], []), "1 shares for 0 schedules"),
        (lambda: schedules.sgdr_epochs(0, 1, 1), "n_cycles is 0; it must be at least 1"),
    ],
)
def test_schedules_refuse_what_they_cannot_do(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
