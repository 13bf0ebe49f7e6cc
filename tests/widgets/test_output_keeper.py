"""What a page says to the keeper of an output, and what that leads to."""

from nbfinetune.widgets.output_keeper import OutputKeeper
from nbfinetune.widgets.screen import Screen


def keeper(screen: Screen | None = None) -> OutputKeeper:
    return OutputKeeper(screen or Screen(), cell="a", count=1, client="page")


def say(kept: OutputKeeper, event: str) -> None:
    kept._handle_custom_msg({"event": event}, [])


def test_it_stays_until_a_page_has_the_last_outputs() -> None:
    kept, ended = keeper(), []
    say(kept, "known")
    kept.end(lambda: ended.append(True), instead={"text/plain": "done"})
    assert (kept.instead, kept.below, kept.ended) == ({"text/plain": "done"}, {}, True)
    assert ended == []
    say(kept, "done")
    assert ended == [True]
    assert kept.comm is None
    say(kept, "done")  # of a second page
    assert ended == [True]


def test_where_the_screen_went_elsewhere_nothing_is_kept() -> None:
    kept = keeper()
    say(kept, "elsewhere")
    assert not kept.known
    assert kept.comm is None


def test_it_tells_a_page_what_the_screen_is() -> None:
    screen = Screen()
    screen.words = "in words"
    assert (keeper(screen).screen, keeper(screen).words) == (screen.model_id, "in words")


def test_a_screen_is_all_its_words_as_text() -> None:
    screen = Screen()
    assert repr(screen) == "<Screen>"
    screen.words = "word " * 100
    assert repr(screen) == screen.words
    assert screen._repr_mimebundle_()["text/plain"] == screen.words
