import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import FakeData, ImageFolder

from nbfinetune import ImageDataLoaders, get_image_files
from nbfinetune.data.datasets import ImageDataset, even_loader
from nbfinetune.data.sources.reading import decoded_anew
from nbfinetune.data.splits import imbalance_text, stratified


def _write(folder: Path, counts: dict[str, int]) -> None:
    side = (
        sum(folder.name.encode()) % 256
    )  # no two folders, and no two classes, have the same pictures
    for k, (name, n) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            Image.new("RGB", (10, 8), (i, k, side)).save(folder / name / f"{name}_{i}.png")


def _files(dls: ImageDataLoaders, part: str) -> list[str]:
    dataset = getattr(dls, part).dataset
    return [dataset.path(i).name for i in range(len(dataset))]


def test_folders_are_classes_split_by_share_in_each_class(tmp_path: Path) -> None:
    _write(tmp_path, {"cat": 20, "dog": 5, "eel": 2})
    dls = ImageDataLoaders.from_folder(tmp_path, size=8)
    assert dls.vocab == ["cat", "dog", "eel"]
    assert Counter(dls.valid.dataset.targets) == {0: 4, 1: 1, 2: 1}
    assert Counter(dls.train.dataset.targets) == {0: 16, 1: 4, 2: 1}
    assert not set(_files(dls, "train")) & set(_files(dls, "valid"))


def test_the_split_follows_its_seed_alone(tmp_path: Path) -> None:
    _write(tmp_path, {"cat": 20, "dog": 20})
    make = ImageDataLoaders.from_folder
    torch.manual_seed(1)
    first = _files(make(tmp_path, size=8, seed=3), "valid")
    torch.manual_seed(2)
    assert _files(make(tmp_path, size=8, seed=3), "valid") == first
    assert _files(make(tmp_path, size=8, seed=4), "valid") != first


@pytest.mark.parametrize("n", range(2, 40))
def test_every_class_keeps_a_picture_on_each_side(n: int) -> None:
    for pct in (0.01, 0.2, 0.5, 0.99):
        held_out = stratified([0] * n, ["a"], pct, seed=0)
        assert 1 <= len(held_out) <= n - 1
        assert len(held_out) == min(max(int(n * pct + 0.5), 1), n - 1)


def test_a_class_of_one_picture_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, {"cat": 3, "dog": 1})
    with pytest.raises(
        ValueError, match=r"1 classes have a single picture \(dog\); a class needs two"
    ):
        ImageDataLoaders.from_folder(tmp_path)


def test_train_and_valid_folders_are_a_given_split(tmp_path: Path) -> None:
    _write(tmp_path / "train", {"cat": 3, "dog": 4})
    _write(tmp_path / "valid", {"cat": 2})
    dls = ImageDataLoaders.from_folder(tmp_path, size=8)
    assert dls.vocab == ["cat", "dog"]
    assert (len(dls.train.dataset), len(dls.valid.dataset)) == (7, 2)


def test_a_train_folder_without_its_valid_folder_is_asked_for(tmp_path: Path) -> None:
    _write(tmp_path / "train", {"cat": 3})
    _write(tmp_path / "holdout", {"cat": 2})
    with pytest.raises(ValueError, match=r"none named 'valid' \(it has: holdout\); pass valid=NA"):
        ImageDataLoaders.from_folder(tmp_path)
    assert len(ImageDataLoaders.from_folder(tmp_path, valid="holdout", size=8).valid.dataset) == 2


def test_a_class_that_is_only_held_out_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "train", {"cat": 3})
    _write(tmp_path / "valid", {"cat": 2, "dog": 2})
    with pytest.raises(ValueError, match="no train pictures of dog, which the valid set has"):
        ImageDataLoaders.from_folder(tmp_path, size=8)


def test_pictures_outside_class_folders_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, {"cat": 3})
    Image.new("RGB", (3, 3)).save(tmp_path / "loose.png")
    with pytest.raises(ValueError, match=r"1 pictures lie in .* \(loose.png\); put them into one"):
        ImageDataLoaders.from_folder(tmp_path)


def test_labels_come_from_file_names(tmp_path: Path) -> None:
    _write(tmp_path, {"great_dane": 3, "pug": 3})
    dls = ImageDataLoaders.from_name_re(tmp_path, get_image_files(tmp_path), r"^(.+)_\d+", size=8)
    assert dls.vocab == ["great_dane", "pug"]


@pytest.mark.parametrize(
    ("pat", "message"),
    [(r"(\d+)_x", r"is not found in pug_0.png, pug_1.png"), ("pug", "has no group; put the label")],
)
def test_a_pattern_that_does_not_work_is_refused(pat: str, message: str, tmp_path: Path) -> None:
    _write(tmp_path, {"pug": 2})
    with pytest.raises(ValueError, match=message):
        ImageDataLoaders.from_name_re(tmp_path, None, pat)


def test_a_csv_file_gives_files_labels_and_split(tmp_path: Path) -> None:
    _write(tmp_path, {"a": 4, "b": 4})
    rows = [f"a/a_{i},10,{i == 0}" for i in range(4)] + [f"b/b_{i},9,{i == 1}" for i in range(4)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,held_out", *rows]))
    options = {"suff": ".png", "size": 8}
    dls = ImageDataLoaders.from_csv(tmp_path, valid_col="held_out", label_col="label", **options)
    assert _files(dls, "valid") == ["a_0.png", "b_1.png"]
    assert dls.vocab == ["9", "10"]
    with pytest.raises(ValueError, match=r"labels.csv has no column 'split'; it has \['file'"):
        ImageDataLoaders.from_csv(tmp_path, valid_col="split", **options)


def test_lists_of_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    _write(tmp_path, {"a": 4})
    files = get_image_files(tmp_path)
    dls = ImageDataLoaders.from_lists(tmp_path, files, [10, 9, 10, 9], size=8)
    assert dls.vocab == ["9", "10"]


def test_torchvision_data_sets_can_be_used(photos: Path) -> None:
    dls = ImageDataLoaders.from_datasets(ImageFolder(photos), ImageFolder(photos), size=28)
    assert dls.vocab == ["blue", "green", "red"]
    assert dls.train.dataset.path(0).name == "blue_0.png"
    assert dls.train.dataset.image(0).size == (48, 40)
    fake = ImageDataLoaders.from_datasets(
        FakeData(6, (3, 9, 9), 4), FakeData(4, (3, 9, 9), 4), size=7
    )
    assert len(fake.vocab) <= 4
    assert fake.train.dataset.path(0) is None


def test_normalised_data_sets_are_refused() -> None:
    data = [(torch.full((3, 4, 4), -2.0), 0)]
    with pytest.raises(ValueError, match=r"item 0: floats outside \[0, 1\], from -2 to -2"):
        ImageDataLoaders.from_datasets(data, data)


@pytest.mark.parametrize(("n", "bs"), [(259, 64), (5, 2), (4, 64), (65, 64), (128, 64)])
def test_batches_are_even_and_hold_every_item_once(n: int, bs: int) -> None:
    squares = torch.arange(n).fmod(256).to(torch.uint8).view(n, 1, 1, 1).expand(n, 3, 1, 1)
    dataset = ImageDataset([None] * n, list(range(n)), 1, squares)
    seen = [y.tolist() for _, y in even_loader(dataset, bs, shuffle=True)]
    sizes = [len(batch) for batch in seen]
    assert max(sizes) <= bs
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-n // bs)
    assert sorted(i for batch in seen for i in batch) == list(range(n))


def test_pictures_are_uint8_squares_decoded_once(dls: ImageDataLoaders) -> None:
    x, y = next(iter(dls.train))
    assert (x.dtype, y.dtype) == (torch.uint8, torch.int64)
    assert x.shape == (4, 3, 37, 37)  # 32 / 0.875
    square, _ = dls.train.dataset[0]
    dls.train.dataset.items[0] = Path("gone")
    assert torch.equal(dls.train.dataset[0][0], square)


def test_what_does_not_fit_into_memory_is_decoded_when_asked_for(
    photos: Path, dls: ImageDataLoaders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbfinetune.runtime.room._MEMORY", 1)
    monkeypatch.setattr("nbfinetune.runtime.room._FREE", 2**80)
    with pytest.warns(UserWarning, match="is decoded anew in each epoch"):
        lazy = ImageDataLoaders.from_folder(photos, valid_pct=0.34, size=32, bs=5)
    assert lazy.train.dataset.cache is None
    assert torch.equal(lazy.train.dataset[3][0], dls.train.dataset[3][0])


@pytest.fixture
def lazy(photos: Path, monkeypatch: pytest.MonkeyPatch) -> ImageDataLoaders:
    """`dls` without room for squares."""
    monkeypatch.setattr("nbfinetune.data.sources.reading.allocate_cache", lambda n, side: None)
    return ImageDataLoaders.from_folder(photos, valid_pct=0.34, size=32, bs=5)


def test_batches_decoded_anew_are_those_that_are_kept(dls, lazy) -> None:
    for part in ("train", "valid"):
        batches = []
        for loaders in (dls, lazy):
            torch.manual_seed(0)
            batches.append(list(getattr(loaders, part)))
        assert len(batches[0]) == len(batches[1]) > 1
        for (x, y), (x_anew, y_anew) in zip(*batches, strict=True):
            assert torch.equal(x, x_anew)
            assert torch.equal(y, y_anew)


def test_an_epoch_that_is_left_decodes_one_batch_ahead_at_most(lazy, monkeypatch) -> None:
    asked, batch = [], ImageDataset.batch
    monkeypatch.setattr(
        ImageDataset, "batch", lambda self, numbers: asked.append(numbers) or batch(self, numbers)
    )
    next(iter(lazy.train))
    assert len(asked) <= 2


def test_a_file_that_is_gone_later_ends_the_epoch_with_its_reason(lazy) -> None:
    lazy.train.dataset.items[0] = Path("gone")
    with pytest.raises(ValueError, match="no such file"):
        list(lazy.train)


def test_a_subset_shares_the_squares(dls: ImageDataLoaders) -> None:
    train, valid = dls.train.dataset, dls.valid.dataset
    assert train.cache.data_ptr() == valid.cache.data_ptr()
    assert torch.equal(train.subset([4, 2]).cached_image(1), train.cached_image(2))


def test_each_item_keeps_its_square_where_files_are_left_out(tmp_path: Path) -> None:
    _write(tmp_path, {"cat": 4, "dog": 4})
    (tmp_path / "cat" / "cat_1.png").write_bytes(b"broken")
    for make in (
        lambda: ImageDataLoaders.from_folder(tmp_path, size=7, on_bad="skip"),
        lambda: ImageDataLoaders.from_datasets(*[ImageFolder(tmp_path)] * 2, size=7, on_bad="skip"),
    ):
        with pytest.warns(UserWarning, match="left out: 1 of 8"):
            dls = make()
        for dataset in (dls.train.dataset, dls.valid.dataset):
            x, _ = dataset.batch(range(len(dataset)))
            reds = [dataset.image(i).getpixel((0, 0))[0] for i in range(len(dataset))]
            assert x[:, 0, 0, 0].tolist() == reds


@pytest.mark.parametrize("of_files", [True, False])
def test_another_size_has_the_same_split_decoded_for_it(photos: Path, of_files: bool) -> None:
    def made(size: int) -> ImageDataLoaders:
        if of_files:
            return ImageDataLoaders.from_folder(photos, valid_pct=0.34, size=size, bs=5)
        return ImageDataLoaders.from_datasets(*[ImageFolder(photos)] * 2, size=size, bs=5)

    dls = made(32)
    before = dls.train.dataset.cache.clone()
    other, expected = dls.with_size(24), made(24)
    assert repr(other) == repr(expected)
    assert (other.vocab, other.warnings) == (expected.vocab, expected.warnings)
    for part in ("train", "valid"):
        dataset = getattr(other, part).dataset
        x, y = dataset.batch(range(len(dataset)))
        same = getattr(expected, part).dataset.batch(range(len(dataset)))
        assert torch.equal(x, same[0])
        assert torch.equal(y, same[1])
    assert (dls.size, torch.equal(dls.train.dataset.cache, before)) == (32, True)


def test_another_size_needs_the_files_and_the_loaders_of_pictures(tmp_path: Path) -> None:
    _write(tmp_path, {"cat": 4, "dog": 4})
    dls = ImageDataLoaders.from_folder(tmp_path, size=8)
    with pytest.raises(ValueError, match="size is 0; it must be a whole number from 1 up"):
        dls.with_size(0)
    dls.train.dataset.path(0).unlink()
    with pytest.raises(ValueError, match=r"1 of 6 pictures can no longer be read: .*no such file"):
        dls.with_size(7)
    dls.valid = [(torch.zeros(1, 3, 8, 8), torch.zeros(1))]
    with pytest.raises(ValueError, match="a loader was put in by hand"):
        dls.with_size(7)


def test_a_subset_of_a_data_set_decodes_its_own_items(photos: Path) -> None:
    dls = ImageDataLoaders.from_datasets(*[ImageFolder(photos)] * 2, size=16)
    some = dls.train.dataset.subset([7, 2])
    assert [some.path(k).name for k in (0, 1)] == ["green_1.png", "blue_2.png"]
    assert torch.equal(some.cached_image(1), dls.train.dataset.cached_image(2))
    assert torch.equal(decoded_anew(some, 18).cached_image(1), some.cached_image(1))


def test_any_loader_can_take_the_data_set(dls: ImageDataLoaders) -> None:
    x, y = next(iter(DataLoader(dls.train.dataset, 3)))
    expected = dls.train.dataset.batch([0, 1, 2])
    assert torch.equal(x, expected[0])
    assert torch.equal(y, expected[1])


def test_processes_that_do_not_start_are_done_without(photos: Path, monkeypatch) -> None:
    def fail(loader: DataLoader) -> None:
        raise OSError("Resource temporarily unavailable")

    dls = ImageDataLoaders.from_folder(photos, size=32, bs=5, num_workers=2)
    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter", fail)
    with pytest.warns(UserWarning, match=r"the 2 processes that load cannot be started \(Resource"):
        batches = list(dls.train)
    assert sum(len(y) for _, y in batches) == len(dls.train.dataset)
    list(dls.train)  # without another warning


def test_workers_give_the_same_batches_as_none(photos: Path) -> None:
    orders = []
    for num_workers in (0, 2):
        dls = ImageDataLoaders.from_folder(photos, size=32, bs=5, num_workers=num_workers)
        torch.manual_seed(0)
        orders.append([(x.float().mean().item(), y.tolist()) for x, y in dls.train])
    assert len(orders[0]) == 3
    assert orders[0] == orders[1]


def test_summary_counts_classes_and_imbalance(tmp_path: Path) -> None:
    _write(tmp_path, {"cat": 10, "dog": 5})
    lines = repr(ImageDataLoaders.from_folder(tmp_path, size=8).summary()).splitlines()
    assert lines == [
        "2 classes; batches of up to 64 x 3 x 8 x 8",
        "class  train  valid",
        "cat        8      2",
        "dog        4      1",
        "all       12      3",
        "largest class has 2.0 x the smallest",
    ]


def test_summary_names_the_rare_classes_and_what_to_type(tmp_path: Path) -> None:
    _write(tmp_path, {"cat": 25, "dog": 5, "emu": 9, "fox": 2})
    dls = ImageDataLoaders.from_folder(tmp_path, size=8)
    assert repr(dls.summary()).splitlines()[-1] == (
        "largest class has 20.0 x the smallest (fox 1, dog 4): the rare are predicted less often "
        "than they are there; where an error on them counts as much as on the others, use "
        "vision_learner(..., logit_adjustment=True, metrics=balanced_accuracy)"
    )
    assert dls.warnings == []  # it may well be as it is in life


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ([9, 9], "largest class has 1.0 x the smallest"),
        ([29, 10], "largest class has 2.9 x the smallest"),
        ([30, 10, 11], r"largest class has 3.0 x the smallest \(b 10\): the rare are"),
        ([3, 0], r"largest class has 3.0 x the smallest \(b 0\): the rare are"),
        ([90, 9, 8, 7, 6, 5, 4], r"smallest \(g 4, f 5, e 6, d 7, c 8 and 1 more\): the rare are"),
    ],
)
def test_classes_are_rare_from_a_third_of_the_largest_down(counts: list[int], text: str) -> None:
    assert re.search(f"{text}{'' if 'rare' in text else '$'}", imbalance_text(counts, "abcdefg"))


def test_show_batch_shows_pictures_with_their_class(dls: ImageDataLoaders) -> None:
    sheet = dls.show_batch(4)
    assert len(sheet.pictures) == len(sheet.captions) == 4
    assert set(sheet.captions) <= set(dls.vocab)
    assert sheet._repr_html_().count("<img ") == 4
    brightest = [max(range(3), key=picture.resize((1, 1)).getpixel((0, 0)).__getitem__)
                 for picture in sheet.pictures]  # fmt: skip
    assert [["red", "green", "blue"][k] for k in brightest] == list(sheet.captions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"valid_pct": 0}, "valid_pct is 0; it must lie between 0 and 1"),
        ({"size": 0}, "size is 0; it must be a whole number from 1 up"),
        ({"bs": 1.5}, "bs is 1.5; it must be a whole number"),
        ({"on_bad": "ignore"}, 'on_bad is \'ignore\'; it must be "error" or "skip"'),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str, photos: Path) -> None:
    with pytest.raises(ValueError, match=message):
        ImageDataLoaders.from_folder(photos, **options)


def test_relative_paths_are_those_of_the_working_folder(tmp_path: Path, monkeypatch) -> None:
    _write(tmp_path / "photos", {"cat": 3, "dog": 3})
    (tmp_path / "photos" / "labels.csv").write_text("file,label\ncat/cat_0.png,a\ncat/cat_1.png,a")
    monkeypatch.chdir(tmp_path)
    make = ImageDataLoaders
    files = get_image_files("photos")
    for dls in (
        make.from_folder("photos", size=8),
        make.from_name_re("photos", None, "([a-z]+)", size=8),
        make.from_name_re("photos", files, "([a-z]+)", size=8),
        make.from_name_re("photos", ["cat/cat_0.png", "cat/cat_1.png"], "([a-z]+)", size=8),
        make.from_lists("photos", sorted(Path("photos").glob("*/*.png")), ["a"] * 6, size=8),
        make.from_csv("photos", size=8),
    ):
        monkeypatch.chdir("/")  # the files are found from anywhere later on
        assert dls.train.dataset.image(0).size == (10, 8)
        monkeypatch.chdir(tmp_path)


def test_the_file_of_an_item_is_told_without_decoding_it(photos: Path, monkeypatch) -> None:
    dls = ImageDataLoaders.from_datasets(ImageFolder(photos), ImageFolder(photos), size=28)
    monkeypatch.setattr(ImageFolder, "__getitem__", None)
    assert dls.train.dataset.path(17).name == "red_5.png"


def test_data_sets_of_different_classes_are_refused(photos: Path, tmp_path: Path) -> None:
    _write(tmp_path, {"green": 2, "red": 2})
    with pytest.raises(ValueError, match="train has the classes blue, green, red but valid"):
        ImageDataLoaders.from_datasets(ImageFolder(photos), ImageFolder(tmp_path))


def test_a_bad_file_of_a_data_set_is_refused_or_skipped(tmp_path: Path) -> None:
    _write(tmp_path, {"cat": 3, "dog": 3})
    (tmp_path / "cat" / "cat_1.png").write_bytes(b"broken")
    data = ImageFolder(tmp_path)
    with pytest.raises(
        ValueError, match=r'1 of 6 pictures cannot be read: item 1: .*on_bad="skip"'
    ):
        ImageDataLoaders.from_datasets(data, data)
    with pytest.warns(UserWarning, match="left out: 1 of 6 pictures cannot be read: item 1"):
        dls = ImageDataLoaders.from_datasets(data, data, size=8, on_bad="skip")
    assert dls.train.dataset.targets == [0, 0, 1, 1, 1]
    assert dls.train.dataset.image(1).getpixel((0, 0))[:2] == (2, 0)


def test_showing_a_batch_leaves_the_random_numbers_alone(dls: ImageDataLoaders) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    dls.show_batch()
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("aug", [None, 1, "flip"])
def test_augmentation_is_true_false_or_a_function(aug, photos: Path) -> None:
    with pytest.raises(ValueError, match=r"aug is .*; it must be True, False or a function"):
        ImageDataLoaders.from_folder(photos, aug=aug)


def test_a_sheet_has_the_rows_and_columns_asked_for(dls) -> None:
    assert "repeat(4,max-content)" in dls.show_batch(8, ncols=4)._repr_html_()
    assert dls.show_batch(8, nrows=2).columns == 4
    assert len(dls.show_batch(9, nrows=2, ncols=3).pictures) == 6
    assert dls.show_batch(3).columns is None


def test_c_is_the_number_of_classes(dls) -> None:
    assert dls.c == 3
