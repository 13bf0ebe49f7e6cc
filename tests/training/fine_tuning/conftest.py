from collections.abc import Callable

import pytest

from nbfinetune import ImageDataLoaders, Learner, vision_learner


@pytest.fixture
def make(photos, small_net) -> Callable[..., Learner]:
    """Makes learners of three classes of pictures that each have a colour of their own."""

    def of(**options) -> Learner:
        dls = ImageDataLoaders.from_folder(photos, size=32, valid_pct=0.3, bs=4)
        return vision_learner(dls, small_net(), device="cpu", train_bn=False, **options)

    return of
