import os
import pickle
import shutil
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from nbfinetune import ImageDataLoaders
from nbfinetune.cluster.data import giving, kept, squares
from nbfinetune.data.image_cache import store


def data_in(cluster, rank: int, key: str) -> object:
    return cluster.call(rank, kept.data_of, key).get()


def batches_of(loader) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    return [*loader]


def same_batches(a, b) -> bool:
    pairs = zip(batches_of(a), batches_of(b), strict=True)
    return all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in pairs)


def test_engines_of_this_host_map_one_file_and_give_the_same_batches(dls, engines) -> None:
    cluster = engines("here", "here")
    key = giving.give_data(cluster, dls)
    [file] = cluster.cache("here").iterdir()
    assert file.stat().st_size == dls.train.dataset.cache.nbytes
    for rank in (0, 1):
        there = data_in(cluster, rank, key)
        assert there is not dls
        assert same_batches(there.train, dls.train)
        assert same_batches(there.valid, dls.valid)
        assert there.train.dataset.cache is there.valid.dataset.cache
        assert repr(there) == repr(dls)
        assert [there.vocab, there.size, there.bs] == [dls.vocab, dls.size, dls.bs]
        assert there.train.dataset.path(0) == dls.train.dataset.path(0)
    assert cluster.calls["here", "take_chunk"] == 0


def test_another_host_gets_the_pictures_once_whatever_its_engines(
    dls, engines, monkeypatch
) -> None:
    monkeypatch.setattr(squares, "CHUNK", 5_000)
    cluster = engines("here", "far", "far", "further")
    key = giving.give_data(cluster, dls)
    n_bytes = dls.train.dataset.cache.nbytes
    for host in ("far", "further"):
        assert cluster.calls[host, "take_chunk"] == -(-n_bytes // 5_000)
        [file] = cluster.cache(host).iterdir()
        assert file.stat().st_size == n_bytes
    assert cluster.n_bytes["here"] < 20_000
    for rank in cluster.ids:
        assert same_batches(data_in(cluster, rank, key).train, dls.train)


def test_a_second_run_sends_no_data_and_finds_the_same_objects(dls, engines) -> None:
    cluster = engines("here", "far")
    key = giving.give_data(cluster, dls)
    first = data_in(cluster, 1, key)
    cluster.n_bytes.clear()
    for _ in dls.train:  # a run changes nothing of them that counts
        pass
    assert giving.give_data(cluster, dls) == key
    assert not any(cluster.n_bytes.values())
    assert data_in(cluster, 1, key) is first


def test_a_new_engine_of_a_host_that_has_the_pictures_gets_none(dls, engines) -> None:
    giving.give_data(engines("far"), dls)
    again = engines("far", "far")
    key = giving.give_data(again, dls)
    assert again.calls["far", "take_chunk"] == 0
    assert same_batches(data_in(again, 0, key).valid, dls.valid)


@pytest.mark.parametrize("damage", ["a byte", "cut", "empty"])
@pytest.mark.parametrize("host", ["here", "far"])
def test_a_damaged_file_is_noticed_and_made_anew(dls, engines, damage, host) -> None:
    giving.give_data(engines(host), dls)
    cluster = engines(host)
    [file] = cluster.cache(host).iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    part = {"a byte": len(content), "cut": len(content) - 1, "empty": 0}[damage]
    file.write_bytes(content[:part])
    os.utime(file, ns=(time.time_ns(), time.time_ns() + 10**9))
    key = giving.give_data(cluster, dls)
    assert same_batches(data_in(cluster, 0, key).train, dls.train)
    assert cluster.calls["far", "take_chunk"] == (host == "far")


def test_what_is_damaged_on_its_way_is_refused_and_leaves_nothing(dls, engines) -> None:
    cluster = engines("far")
    cluster.change_chunk = lambda chunk: bytes(len(chunk))
    with pytest.raises(OSError, match="was damaged on its way; run it again"):
        giving.give_data(cluster, dls)
    assert [*cluster.cache("far").iterdir()] == []
    cluster.change_chunk = lambda chunk: chunk
    key = giving.give_data(cluster, dls)
    assert same_batches(data_in(cluster, 0, key).train, dls.train)


def test_a_sending_that_broke_off_begins_anew(dls, engines, monkeypatch) -> None:
    monkeypatch.setattr(squares, "CHUNK", 5_000)
    cluster, seen = engines("far"), []

    def breaks(chunk: bytes) -> bytes:
        seen.append(chunk)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return chunk

    cluster.change_chunk = breaks
    with pytest.raises(KeyboardInterrupt):
        giving.give_data(cluster, dls)
    key = giving.give_data(cluster, dls)
    assert same_batches(data_in(cluster, 0, key).train, dls.train)
    assert [file.suffix for file in cluster.cache("far").iterdir()] == [".squares"]


def test_what_an_engine_writes_into_its_pictures_is_not_in_the_file(dls, engines) -> None:
    cluster = engines("here")
    key = giving.give_data(cluster, dls)
    [file] = cluster.cache("here").iterdir()
    before = file.read_bytes()
    data_in(cluster, 0, key).train.dataset.cache.fill_(7)
    assert file.read_bytes() == before


def test_pictures_that_changed_are_other_data(dls, engines) -> None:
    cluster = engines("here")
    key = giving.give_data(cluster, dls)
    cache = dls.train.dataset.cache
    cache[0] = 0
    assert giving.give_data(cluster, dls) != key
    assert len([*cluster.cache("here").iterdir()]) == 2


def test_a_name_of_a_file_says_what_is_in_it_alone() -> None:
    cache = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 4, 4, 3).permute(0, 3, 1, 2)
    name = squares.name_of(cache)
    assert name == squares.name_of(cache.contiguous())
    assert squares.shape_of(name) == [2, 4, 4, 3]
    assert name != squares.name_of(torch.zeros_like(cache))
    store(torch.zeros(3, 4, 4, dtype=torch.uint8), cache.permute(0, 2, 3, 1)[0])
    assert squares.digest(squares.flat(cache)) != name.partition("-")[0]


@pytest.fixture
def by_path(photos, tmp_path, monkeypatch) -> ImageDataLoaders:
    """Loaders that decode in each epoch, of a copy of the photos."""
    shutil.copytree(photos, tmp_path / "photos")
    monkeypatch.setattr("nbfinetune.data.sources.reading.allocate_cache", lambda n, side: None)
    return ImageDataLoaders.from_folder(tmp_path / "photos", valid_pct=0.34, size=32, bs=5)


def test_files_that_all_see_go_by_their_paths(by_path, engines) -> None:
    cluster = engines("here", "far")
    key = giving.give_data(cluster, by_path)
    assert cluster.n_bytes["far"] < 10_000
    assert not cluster.cache("far").exists()
    assert same_batches(data_in(cluster, 1, key).train, by_path.train)


def test_a_host_that_does_not_see_the_files_is_named(by_path, engines, monkeypatch) -> None:
    cluster = engines("here", "far")
    real, files = kept.stamp, sorted(map(str, by_path.train.dataset.items))

    def stamp(file: str) -> tuple[int, str]:
        if "far" in os.environ["NBFINETUNE_CACHE"]:
            raise FileNotFoundError(2, "No such file or directory")
        return real(file)

    monkeypatch.setattr(kept, "stamp", stamp)
    with pytest.raises(FileNotFoundError, match=r"^far does not see the pictures: ") as refused:
        giving.give_data(cluster, by_path)
    text = str(refused.value)
    assert "of a sample of 18 files 18 are not there or are others" in text
    assert "No such file or directory" in text
    assert "at the same path on all hosts" in text
    assert "smaller size=" in text
    assert any(file in text for file in files)
    assert "\n" not in text


def test_another_file_at_the_same_path_is_told(by_path, engines) -> None:
    file = str(by_path.train.dataset.items[0])
    known = {file: kept.stamp(file)}
    assert kept.unseen(known) == []
    with open(file, "ab") as opened:
        opened.write(b"x")
    assert kept.unseen(known) == [f"{file} is another file"]
    os.unlink(file)
    assert kept.unseen(known) == [f"{file}: No such file or directory"]


def test_data_sets_of_arrays_go_as_their_squares_alone(engines) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 200, 200, 3), dtype=np.uint8)
    labels = [i % 2 for i in range(20)]
    own = ImageDataLoaders.from_datasets((noise, labels), size=16, bs=4)
    cluster = engines("here")
    key = giving.give_data(cluster, own)
    assert cluster.n_bytes["here"] < 10_000
    there = data_in(cluster, 0, key)
    assert same_batches(there.train, own.train)
    assert there.train.dataset.path(0) is None
    with pytest.raises(ValueError, match="item 0 is not here but in the notebook"):
        there.train.dataset.image(0)


def test_loaders_of_the_users_own_go_whole(engines) -> None:
    x, y = torch.randn(9, 4), torch.arange(9) % 2

    class Loaders:
        def __init__(self) -> None:
            self.train = DataLoader(TensorDataset(x, y), 4)
            self.valid, self.vocab = [(x, y)], ("no", "yes")

    cluster = engines("here", "far")
    key = giving.give_data(cluster, own := Loaders())
    assert same_batches(data_in(cluster, 1, key).train, own.train)


def test_files_that_were_not_used_for_a_week_are_deleted(dls, engines) -> None:
    cluster = engines("here")
    giving.give_data(cluster, dls)
    [file] = cluster.cache("here").iterdir()
    for name, days in (("old", 8), ("new", 6)):
        path = file.with_name(f"{name}-1x1x1x3.squares")
        path.write_bytes(b"abc")
        os.utime(path, (time.time() - days * 86_400,) * 2)
    os.utime(file, (time.time() - 30 * 86_400,) * 2)
    giving.give_data(cluster, dls)
    assert {path.name[:3] for path in cluster.cache("here").iterdir()} == {"new", file.name[:3]}


def test_nothing_is_left_of_a_cluster_that_stops(dls, engines) -> None:
    cluster = engines("here", "far")
    key = giving.give_data(cluster, dls)
    for rank in cluster.ids:
        cluster.call(rank, kept.drop_data).get()
    for host in ("here", "far"):
        assert [*cluster.cache(host).iterdir()] == []
    with pytest.raises(ValueError, match="has lost the data"):
        data_in(cluster, 0, key)


def test_a_disk_without_room_at_home_does_not_keep_the_hosts_from_it(
    dls, engines, monkeypatch
) -> None:
    def full(cache: torch.Tensor) -> None:
        raise OSError("no room")

    monkeypatch.setattr(squares, "write", full)
    cluster = engines("far")
    key = giving.give_data(cluster, dls)
    assert same_batches(data_in(cluster, 0, key).train, dls.train)


def test_the_data_of_an_engine_is_no_more_than_some_sets(dls, engines) -> None:
    cluster = engines("here")
    first = giving.give_data(cluster, dls)
    for i in range(8):
        giving.give_data(cluster, [i])
    assert not cluster.call(0, kept.holds, first).get()
    giving.give_data(cluster, dls)
    assert cluster.call(0, kept.holds, first).get()


def test_an_engine_that_lacks_the_file_says_so(dls, engines) -> None:
    cluster = engines("here")
    packed = giving._Packed(dls)
    pending = cluster.call(0, kept.open_data, packed.key, packed.content, "/nowhere")
    with pytest.raises(OSError, match="is gone or damaged; run it again"):
        pending.get()


def test_names_of_files_go_between_systems(dls) -> None:
    """Paths are texts on their way: one of Windows could not be made here."""
    content = giving._Packed(dls).content
    assert b"PosixPath" not in content
    assert pickle.PROTO in content
