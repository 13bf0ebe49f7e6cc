"""The table of faults: what is injected, what is promised, what was seen.

A test is a row by `@pytest.mark.fault(injected, promised)`; what it saw is its property "seen".
"""

import pytest

from nbfinetune.rendering.tables import Table

_rows: list[tuple[str, str, str]] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    mark = item.get_closest_marker("fault")
    if mark and call.when == "call":
        seen = dict(report.user_properties).get("seen", "")
        outcome = {"passed": "kept", "failed": "BROKEN"}.get(report.outcome, report.outcome)
        _rows.append((*mark.args, f"{outcome}, {seen}" if seen else outcome))
    return report


def pytest_terminal_summary(terminalreporter, config):
    if _rows and config.option.markexpr != "not bulk":
        broken = sum(seen.startswith("BROKEN") for _, _, seen in _rows)
        title = f"{len(_rows)} faults, {broken} promises broken"
        terminalreporter.write_line(str(Table(title, ("injected", "promised", "seen"), _rows)))
