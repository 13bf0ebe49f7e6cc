"""The demo driven as a front end drives it: a picture comes, its classes or a reason go back."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nbfinetune import vision_learner
from nbfinetune.live import demo
from nbfinetune.live.demo import show_demo
from nbfinetune.widgets.demo.predict_demo import PredictDemo


def send(screen: PredictDemo, content: bytes, name: str = "new.png", n: float = 7.5) -> dict:
    panel = screen.children[0]
    panel._handle_custom_msg({"event": "picture", "n": n, "name": name}, [memoryview(content)])
    return panel.answer


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_a_picture_is_answered_by_its_most_probable_classes() -> None:
    asked = []

    def predict(name: str, content: bytes) -> list[tuple[str, float]]:
        asked.append((name, content))
        return [("pug", 0.75), ("boxer", 0.25)]

    screen = PredictDemo(predict, "two dogs")
    assert send(screen, b"bytes") == {
        "n": 7.5,
        "name": "new.png",
        "classes": [["pug", 0.75], ["boxer", 0.25]],
        "problem": "",
    }
    assert asked == [("new.png", b"bytes")]
    assert screen.classes == [("pug", 0.75), ("boxer", 0.25)]
    assert screen.status.text == "new.png: pug 0.75, boxer 0.25"  # what is spoken


def test_what_cannot_be_predicted_is_said_and_the_next_picture_is() -> None:
    def predict(name: str, content: bytes) -> list[tuple[str, float]]:
        if content == b"bad":
            raise ValueError("bad:\ndamaged")
        return [("pug", 1.0)]

    screen = PredictDemo(predict, "dogs")
    answer = send(screen, b"bad")
    assert (answer["classes"], answer["problem"]) == ([], "bad:\\ndamaged")
    assert (screen.classes, screen.status.text) == ([], "")
    answer = send(screen, b"good")
    assert (answer["classes"], answer["problem"]) == ([["pug", 1.0]], "")


@pytest.fixture
def in_notebook(monkeypatch) -> None:
    monkeypatch.setattr(demo, "kernel_runs", lambda: True)
    monkeypatch.setattr(demo, "static", lambda: False)


def test_a_learner_predicts_the_bytes_of_a_file_as_the_file(
    dls, tiny_net, in_notebook, tmp_path: Path
) -> None:
    learn = vision_learner(dls, tiny_net, weights=None, device="cpu")
    learn.fit(2, 1e-2, show=False)
    screen = show_demo(learn)
    picture = Image.fromarray(np.full((30, 50, 3), (200, 40, 10), np.uint8))
    (tmp_path / "new.png").write_bytes(png(picture))
    answer = send(screen, png(picture))
    label, _, probs = learn.predict(tmp_path / "new.png")
    assert answer["classes"][0][0] == label
    assert [p for _, p in answer["classes"]] == sorted(probs.tolist(), reverse=True)
    assert send(screen, b"no picture", "notes.txt")["problem"].startswith("notes.txt: ")
    assert (
        "cannot be" in send(screen, b"")["problem"]
        or "empty" in screen.children[0].answer["problem"]
    )
    del learn
    assert send(screen, png(picture))["problem"] == "the learner of this screen is gone"


def test_without_screens_it_says_what_to_type(dls, tiny_net, learn, capsys) -> None:
    of_pictures = vision_learner(dls, tiny_net, weights=None, device="cpu")
    with pytest.raises(RuntimeError, match="demo is a screen of notebooks; type %load_ext nbfin"):
        of_pictures.demo()
    with pytest.raises(ValueError, match="demo is for learners of pictures with a vocab"):
        show_demo(learn)
    assert show_demo(of_pictures) is None
    assert "no widgets here; learn.predict(FILE) predicts a picture" in capsys.readouterr().out
