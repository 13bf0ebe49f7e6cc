import json
import os
import pickle
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import save_file

from nbfinetune import ImageDataLoaders, Learner, load_learner, vision_learner
from nbfinetune.checkpoints import checkpoint


@pytest.fixture
def learn(dls: ImageDataLoaders) -> Learner:
    learn = vision_learner(dls, "mobilenet_v3_small", weights=None, head="fastai", device="cpu")
    learn.fit(1, 1e-3)
    return learn


def test_saved_and_loaded_predictions_are_equal_to_the_last_bit(learn, dls, tmp_path) -> None:
    preds = learn.get_preds()[0]
    file = learn.save(tmp_path / "deep" / "model.safetensors")
    other = vision_learner(dls, "mobilenet_v3_small", weights=None, head="fastai", seed=7)
    assert not torch.equal(other.get_preds()[0], preds)
    other.load(file)
    assert torch.equal(other.get_preds()[0], preds)


def test_a_step_after_load_is_that_of_the_saved_learner(dls, tmp_path) -> None:
    """Weights are channels_last, and what a file gives is contiguous."""
    pair = [vision_learner(dls, "resnet18", weights=None, device="cpu") for _ in range(2)]
    for learn in pair:
        learn.unfreeze()
    pair[0].fit(1, 1e-3)
    pair[1].load(pair[0].save(tmp_path / "m"))
    for learn in pair:
        for k, p in enumerate(learn.model.parameters()):
            p.grad = torch.full_like(p, 1e-3 * (k % 7 - 3))
        learn.opt.step()
    both = zip(*(learn.model.parameters() for learn in pair), strict=True)
    assert all(torch.equal(a, b) for a, b in both)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("opt.0.exp_avg", torch.zeros(1), r"optimizer has exp_avg \[1\] for weight 0, which needs"),
        ("opt.0.step", torch.zeros(3), r"optimizer has step \[3\] for weight 0, which needs \[\]"),
        ("opt.9999.exp_avg", torch.zeros(1), "for weight 9999, which is not there"),
        ("opt.x.exp_avg", torch.zeros(1), "for weight x, which is not there"),
    ],
)
def test_states_of_another_optimizer_are_refused_before_anything_is_changed(
    name, value, message, learn, tmp_path
) -> None:
    file = learn.save(tmp_path / "m")
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    tensors = {k: v + 1 if k.startswith("model.") else v for k, v in tensors.items()}
    save_file(tensors | {name: value}, tmp_path / "other", metadata)
    before = learn.get_preds()[0]
    with pytest.raises(ValueError, match=message):
        learn.load(tmp_path / "other")
    assert torch.equal(learn.get_preds()[0], before)


def test_training_goes_on_after_load_as_without_it(loaders, mlp, tmp_path: Path) -> None:
    groups = [[part] for part in mlp]
    learn = Learner(loaders, mlp, groups=groups, device="cpu")
    learn.fit_one_cycle(1, 1e-2, wd=0.1)  # leaves another momentum and decay behind
    learn.save(tmp_path / "m")
    model = deepcopy(mlp)
    other = Learner(loaders, model, groups=[[part] for part in model], device="cpu")
    with pytest.warns(UserWarning, match=r"its weight decay 1.0e-1 is taken, not 1.0e-2$"):
        other.load(tmp_path / "m")
    assert learn.fit(1, 1e-3).stages[0].losses == other.fit(1, 1e-3).stages[0].losses
    assert learn.recorder.run.moms == other.recorder.run.moms


def test_frozen_groups_are_saved_too(learn: Learner, tmp_path: Path) -> None:
    learn.freeze()
    learn.save(tmp_path / "m")
    learn.unfreeze()
    learn.load(tmp_path / "m")
    assert learn.frozen == len(learn.groups) - 1 == 4
    assert not next(learn.model.parameters()).requires_grad


def test_a_file_from_before_stages_were_groups_has_its_body_frozen(
    learn: Learner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = checkpoint._header(learn) | {"frozen": 1}
    del header["n_groups"]
    monkeypatch.setattr(checkpoint, "_header", lambda learn: header)
    learn.export(tmp_path / "m")
    assert load_learner(tmp_path / "m").frozen == 4


def test_an_export_opens_in_a_fresh_process_without_the_data(learn, tmp_path: Path) -> None:
    file = learn.export(tmp_path / "model.safetensors")
    picture = tmp_path / "picture.png"
    learn.dls.valid.dataset.image(0).save(picture)
    code = (
        "import sys, json, nbfinetune\n"
        "learn = nbfinetune.load_learner(sys.argv[1], device='cpu')\n"
        "label, index, probs = learn.predict(sys.argv[2])\n"
        "print(json.dumps([label, int(index), probs.tolist(), learn.dls is None]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, file, picture],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    label, index, probs = learn.predict(picture)
    assert json.loads(done.stdout.splitlines()[-1]) == [label, int(index), probs.tolist(), True]


def test_a_loaded_learner_can_be_trained_on_given_data(learn, dls, tmp_path: Path) -> None:
    learn.export(tmp_path / "m")
    again = load_learner(tmp_path / "m", dls, device="cpu")
    assert again.fine_tune(1, freeze_epochs=1).status == "finished"
    alone = load_learner(tmp_path / "m", device="cpu")
    with pytest.raises(ValueError, match="this learner has no data to train on"):
        alone.fine_tune(1)
    with pytest.raises(ValueError, match="this learner has no data to train on"):
        alone.fit(1)


def test_the_header_tells_how_the_model_is_built(learn: Learner, tmp_path: Path) -> None:
    learn.export(tmp_path / "m")
    with safe_open(tmp_path / "m", "pt") as file:
        header = json.loads(file.metadata()["nbfinetune"])
    assert len(header.pop("digest")) == 32
    assert set(header.pop("versions")) == {"nbfinetune", "torch", "torchvision"}
    assert header == {
        "arch": "mobilenet_v3_small",
        "head": "fastai",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "weights": "none",
        "size": 32,
        "vocab": ["blue", "green", "red"],
        "frozen": 0,
        "n_groups": len(learn.groups),
        "train_bn": True,
    }


@pytest.mark.parametrize("write", ["save", "export"])
def test_no_file_is_overwritten_unless_asked(write: str, learn: Learner, tmp_path: Path) -> None:
    (tmp_path / "m").write_text("precious")
    with pytest.raises(FileExistsError, match="exists; take another name or pass overwrite=True"):
        getattr(learn, write)(tmp_path / "m")
    assert (tmp_path / "m").read_text() == "precious"
    getattr(learn, write)(tmp_path / "m", overwrite=True)
    learn.load(tmp_path / "m")


def test_a_failed_write_leaves_the_old_file_and_no_other(learn, tmp_path, monkeypatch) -> None:
    learn.save(tmp_path / "m")
    before = (tmp_path / "m").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        learn.save(tmp_path / "m", overwrite=True)
    assert (tmp_path / "m").read_bytes() == before
    assert os.listdir(tmp_path) == ["m"]


def test_a_file_that_does_not_fit_says_which_part(learn: Learner, dls, tmp_path: Path) -> None:
    learn.save(tmp_path / "m")
    plain = vision_learner(dls, "mobilenet_v3_small", weights=None, device="cpu")
    before = {k: v.clone() for k, v in plain.model.state_dict().items()}
    with pytest.raises(ValueError, match=r"m does not fit: .*1\.weight is missing there"):
        plain.load(tmp_path / "m")
    after = plain.model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_file_of_other_classes_says_which(learn: Learner, tmp_path: Path) -> None:
    learn.save(tmp_path / "m")
    learn.vocab = ["blue", "GREEN", "red"]
    with pytest.raises(ValueError, match="class 1 is 'green' there but 'GREEN' here"):
        learn.load(tmp_path / "m")
    learn.vocab = ["blue", "red"]
    with pytest.raises(ValueError, match="it has 3 classes, this learner 2"):
        learn.load(tmp_path / "m")


def test_files_from_elsewhere_are_refused(learn: Learner, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="has no nbfinetune header; it was saved by something"):
        load_learner(tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="is no safetensors file, or is damaged"):
        load_learner(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no file"):
        load_learner(tmp_path / "gone")


def test_a_truncated_file_is_refused(learn: Learner, tmp_path: Path) -> None:
    whole = learn.save(tmp_path / "m").read_bytes()
    (tmp_path / "m").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is no safetensors file, or is damaged"):
        learn.load(tmp_path / "m")


def test_a_module_of_the_users_is_asked_for(dls, tiny_net, tmp_path: Path) -> None:
    learn = vision_learner(dls, tiny_net, device="cpu")
    learn.fit(1, 1e-2)
    learn.export(tmp_path / "m")
    with pytest.raises(ValueError, match="was trained from a module of yours; pass it as arch="):
        load_learner(tmp_path / "m")
    again = load_learner(tmp_path / "m", arch=tiny_net, device="cpu")
    picture = dls.valid.dataset.image(0)
    assert torch.equal(again.predict(picture)[2], learn.predict(picture)[2])


def test_data_of_other_classes_is_refused(learn, photos: Path, tmp_path: Path) -> None:
    learn.export(tmp_path / "m")
    for color in ("blue", "green", "red"):
        (tmp_path / "photos" / f"dark {color}").parent.mkdir(exist_ok=True)
        (tmp_path / "photos" / f"dark {color}").symlink_to(photos / color)
    other = ImageDataLoaders.from_folder(tmp_path / "photos", size=32)
    with pytest.raises(ValueError, match=r"dls does not fit .*: class 0 is 'blue' there but 'dark"):
        load_learner(tmp_path / "m", other)


def test_a_loaded_learner_has_the_metric_and_augmentation_of_a_new_one(
    learn, photos: Path, tmp_path: Path
) -> None:
    learn.export(tmp_path / "m")
    dls = ImageDataLoaders.from_folder(photos, size=32, aug=False)
    again = load_learner(tmp_path / "m", dls, device="cpu")
    assert again.metric_names == ["error_rate"]
    assert again.transforms.aug is False


def test_a_file_of_more_groups_changes_nothing(learn, loaders, mlp, tmp_path: Path) -> None:
    grouped = Learner(loaders, mlp, groups=[[part] for part in mlp], device="cpu")
    grouped.freeze()
    grouped.save(tmp_path / "m")
    model = deepcopy(mlp)
    with torch.no_grad():
        model[2].bias.add_(1)
    single = Learner(loaders, model, device="cpu")
    with pytest.raises(ValueError, match="m does not fit: it has more than 1 layer groups"):
        single.load(tmp_path / "m")
    assert torch.equal(model[2].bias, mlp[2].bias + 1)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc on this system")
def test_a_loaded_learner_does_not_live_in_its_file(learn: Learner, tmp_path: Path) -> None:
    file = learn.save(tmp_path / "m")
    learn.load(file)
    with open("/proc/self/maps") as maps:
        assert str(file) not in maps.read()


@pytest.mark.skipif(os.name == "nt", reason="no umask on Windows")
@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644)])
def test_files_have_the_rights_the_user_asked_for(learn, tmp_path: Path, umask, mode) -> None:
    old = os.umask(umask)
    try:
        file = learn.save(tmp_path / "m")
    finally:
        os.umask(old)
    assert file.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("arch", ["mnasnet0_5", "googlenet", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_trained_networks_of_all_kinds_are_read_again(arch: str, dls, tmp_path: Path) -> None:
    """MNASNets refuse a state that does not tell its version."""
    learn = vision_learner(dls, arch, weights=None, device="cpu")
    learn.fine_tune(1, freeze_epochs=1)  # puts the weights of the best epoch back
    picture = dls.valid.dataset.image(0)
    preds = learn.predict(picture)[2]
    again = load_learner(learn.export(tmp_path / "exported"), device="cpu")
    assert torch.equal(again.predict(picture)[2], preds)
    other = vision_learner(dls, arch, weights=None, seed=7, device="cpu")
    other.load(learn.save(tmp_path / "saved"))
    assert torch.equal(other.predict(picture)[2], preds)


def test_weights_of_a_network_with_versions_come_from_safetensors_too(dls, tmp_path: Path) -> None:
    state = torchvision.models.mnasnet0_5(weights=None).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    learn = vision_learner(dls, "mnasnet0_5", weights=tmp_path / "w.safetensors", device="cpu")
    assert torch.equal(learn.model[0].layers[0].weight, state["layers.0.weight"])


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("content", ["learner", "model", "state"])
def test_pickles_are_refused_by_name_and_not_opened(content, legacy, learn, tmp_path) -> None:
    saved = {"learner": learn, "model": learn.model, "state": learn.model.state_dict()}[content]
    torch.save(saved, tmp_path / "m.pkl", _use_new_zipfile_serialization=not legacy)
    for read in (load_learner, learn.load):
        with pytest.raises(
            ValueError, match=r"m.pkl is no safetensors file but a pickle, of fastai"
        ):
            read(tmp_path / "m.pkl")


def test_a_pickled_or_copied_learner_trains_as_the_first(dls, tiny_net) -> None:
    learn = vision_learner(dls, tiny_net, device="cpu")
    learn.fit(1, 1e-2)
    others = pickle.loads(pickle.dumps(learn)), deepcopy(learn)
    expected = learn.fit(1, 1e-2).stages[0].losses
    for other in others:
        assert other.fit(1, 1e-2).stages[0].losses == expected
        assert other.dls.vocab == dls.vocab


def test_a_loaded_learner_sees_pictures_at_the_size_of_its_data(learn, photos, tmp_path) -> None:
    learn.export(tmp_path / "m")
    larger = ImageDataLoaders.from_folder(photos, size=48, bs=5)
    again = load_learner(tmp_path / "m", larger, device="cpu")
    assert again.transforms.size == 48
    alone = load_learner(tmp_path / "m", device="cpu")
    assert alone.transforms.size == 32
    alone.dls = larger
    assert alone.transforms.size == 48
    again.fit(1, 1e-3)
    assert load_learner(again.export(tmp_path / "larger")).transforms.size == 48


def test_a_loaded_learner_refuses_data_of_a_size_that_it_does_not_take(photos, tmp_path) -> None:
    dls, larger = (ImageDataLoaders.from_folder(photos, size=size, bs=5) for size in (32, 64))
    learn = vision_learner(dls, "vit_b_32", weights=None, device="cpu")
    learn.export(tmp_path / "m")
    with pytest.raises(ValueError, match="gives pictures of 64 px, which the model does not take"):
        load_learner(tmp_path / "m", larger, device="cpu")
