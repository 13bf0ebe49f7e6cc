"""Model files from strangers: taken whole or refused in one line, before anything is changed."""

import hashlib
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load as parse
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from nbfinetune import Learner, load_learner, vision_learner
from nbfinetune.checkpoints import checkpoint
from nbfinetune.networks.weights_file import load_weights_file

fault = pytest.mark.fault
CHUNK, CHUNKS = 250, 10  # mutations that one child process tries, and how many of them
KILLS = 100


def batches() -> SimpleNamespace:
    x = torch.sin(torch.arange(16 * 4.0)).view(16, 4)
    pairs = [(x[i : i + 4], (x[i : i + 4].sum(1) > 0).long()) for i in range(0, 16, 4)]
    return SimpleNamespace(train=pairs, valid=pairs, vocab=["no", "yes"])


def made(seed: int = 0, width: int = 5) -> Learner:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU()), nn.Linear(width, 2)
    )
    groups = [[part] for part in model]
    learn = Learner(batches(), model, groups=groups, device="cpu", seed=seed)
    with learn.quiet():
        learn.fit(1, 1e-2 * (seed + 1))
    return learn


def bits(learn: Learner) -> str:
    """A digest of all that a load may change."""
    digest = hashlib.sha256()
    for value in learn.model.state_dict().values():
        digest.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy())
    for p in learn.model.parameters():
        state = learn.opt.state.get(p, {})
        digest.update(repr([(k, v.tolist()) for k, v in state.items()]).encode())
        digest.update(repr(p.requires_grad).encode())
    groups = [{k: v for k, v in g.items() if k != "params"} for g in learn.opt.param_groups]
    digest.update(repr((groups, learn.frozen, learn.train_bn, learn.transforms)).encode())
    return digest.hexdigest()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return made().save(tmp_path / "m.safetensors")


def rewritten(
    file: Path,
    *,
    header: Callable[[dict], object] = lambda h: None,
    tensors: Callable[[dict], object] = lambda t: None,
) -> None:
    """The file with other content and no digest, as of the version before."""
    content = file.read_bytes()
    (n,) = struct.unpack("<Q", content[:8])
    inside = json.loads(json.loads(content[8 : 8 + n])["__metadata__"]["nbfinetune"])
    inside.pop("digest", None)
    every = parse(content)
    header(inside)
    tensors(every)
    file.write_bytes(save_bytes(every, metadata={"nbfinetune": json.dumps(inside)}))


def refused(learn: Learner, file: Path) -> str:
    """What loading says, in one line that names the file; nothing is changed."""
    before = bits(learn)
    with pytest.raises(ValueError, match=file.name) as caught:
        learn.load(file)
    assert "\n" not in str(caught.value)
    assert bits(learn) == before
    return str(caught.value)


@fault("one flipped bit in the weights", "refused by the digest")
def test_a_damaged_file_is_told_by_its_digest(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-3] ^= 1
    saved.write_bytes(content)
    assert "is damaged, or was changed by something else" in refused(made(1), saved)


@fault("a class of the header renamed", "refused by the digest, which is of the header too")
def test_the_digest_is_of_the_header_too(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes().replace(b"yes", b"yea"))
    learn = made(1)
    learn.vocab = ["no", "yea"]
    assert "its digest is another one" in refused(learn, saved)


@fault("a file of the version before, without a digest", "loads")
def test_a_file_without_a_digest_is_taken(saved: Path) -> None:
    rewritten(saved, header=lambda h: h.pop("opt_weights"))
    learn = made(1)
    learn.load(saved)
    assert bits(learn) == bits(made())


def replaced(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[dict], object]:
    return lambda tensors: tensors.update({name: change(tensors[name])})


WEIGHT, OPT = "model.1.weight", "opt.0.exp_avg"
TENSORS = {
    "another shape": (replaced(WEIGHT, lambda t: t[:1].clone()), r"1.weight is [1, 5] there"),
    "another type": (replaced(WEIGHT, Tensor.double), "1.weight is torch.float64 there"),
    "missing": (lambda t: t.pop(WEIGHT), "1.weight is missing there"),
    "left over": (lambda t: t.update(x=torch.ones(1)), "x is not in this model"),
    "NaN": (replaced(WEIGHT, lambda t: t * torch.nan), "1.weight has values that are infinite"),
    "infinite": (replaced(WEIGHT, lambda t: t / 0), "1.weight has values that are infinite"),
    "variance": (replaced("model.0.1.running_var", torch.neg), "has variances below 0"),
    "momentum NaN": (replaced(OPT, lambda t: t * torch.nan), "exp_avg of weight 0 has impos"),
    "momentum half": (replaced(OPT, Tensor.half), "exp_avg torch.float16"),
    "momentum shape": (replaced(OPT, lambda t: t[:1].clone()), "for weight 0, which needs"),
    "momentum gone": (lambda t: t.pop(OPT), "for weight 0, not step torch.float32, exp_avg"),
    "square below 0": (replaced("opt.0.exp_avg_sq", lambda t: -t - 1), "exp_avg_sq of weight 0"),
    "steps below 0": (replaced("opt.0.step", torch.neg), "step of weight 0 has impossible"),
    "half a step": (replaced("opt.0.step", lambda t: t + 0.5), "step of weight 0 has impossible"),
    "unknown weight": (lambda t: t.update({"opt.99.step": torch.ones(())}), "for weight 99"),
    "unknown state": (lambda t: t.update({"opt.0.x": torch.ones(2, 2)}), "optimizer has x"),
}


@fault("16 kinds of wrong tensors in a file without a digest", "refused by name, nothing changed")
@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_do_not_fit_are_refused_by_name(case: str, saved: Path) -> None:
    change, message = TENSORS[case]
    rewritten(saved, tensors=change)
    assert message in refused(made(1), saved)


HEADERS = [
    *(("vocab", v) for v in ("ab", [["a"], ["b"]], [None, None], ["a", "a"], [], ["no", " "])),
    *(("frozen", v) for v in (0.5, "0", True, -1, 2, 10**30)),
    *(("train_bn", v) for v in (None, 1, "yes")),
    *(("opt", v) for v in (None, [], [{}], {}, [{"lr": 1, "betas": [0, 0], "weight_decay": 0}])),
    ("opt_weights", ["a", "b"]),
    ("opt_weights", 3),
]
OF_GROUP = [("lr", -1), ("lr", "1"), ("betas", [1, 2]), ("betas", 3), ("weight_decay", None)]


@fault("24 header values that no learner has", "refused by name, nothing changed")
@pytest.mark.parametrize(("key", "value"), HEADERS)
def test_header_values_that_make_no_sense_are_refused(key, value, saved: Path) -> None:
    rewritten(saved, header=lambda h: h.update({key: value}))
    learn = made(1)
    learn.vocab = None  # whatever classes it has
    refused(learn, saved)


@fault("settings of the optimizer that it cannot have", "refused by name, nothing changed")
@pytest.mark.parametrize(("key", "value"), OF_GROUP)
def test_settings_that_no_optimizer_has_are_refused(key, value, saved: Path) -> None:
    rewritten(saved, header=lambda h: h["opt"][0].update({key: value}))
    assert f"{key} of the optimizer is" in refused(made(1), saved)


@fault("an interrupt, and two, while a file is loaded", "all of it is, then they act")
@pytest.mark.parametrize("n", [1, 2])
def test_an_interrupted_load_is_whole(n: int, saved: Path, monkeypatch) -> None:
    learn, expected = made(1), bits(made())
    freeze_to = learn.freeze_to

    def interrupted(*args, **kwargs) -> None:
        freeze_to(*args, **kwargs)
        for _ in range(n):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(learn, "freeze_to", interrupted)
    with pytest.raises(KeyboardInterrupt):
        learn.load(saved)
    assert bits(learn) == expected


@fault("a module that fails in load_state_dict", "nothing is changed")
def test_a_load_that_fails_half_way_is_taken_back(saved: Path, monkeypatch) -> None:
    learn = made(1)
    before = bits(learn)

    def fails(n: int, quiet: bool) -> None:
        raise RuntimeError("of a module")

    monkeypatch.setattr(learn, "freeze_to", fails)
    with pytest.raises(RuntimeError, match="of a module"):
        learn.load(saved)
    assert bits(learn) == before


@fault("a file of other size, normalisation, decay and train_bn", "each is said in one line")
def test_other_settings_are_said(dls, tiny_net, tmp_path: Path) -> None:
    first = vision_learner(dls, tiny_net, device="cpu")
    file = first.save(tmp_path / "m")
    half = ([0.5] * 3, [0.25] * 3)
    other = vision_learner(dls, tiny_net, normalize=half, wd=0.5, train_bn=True, device="cpu")
    with pytest.warns(UserWarning, match="was saved with other settings") as told:
        other.load(file)
    [text] = [str(w.message) for w in told if "other settings" in str(w.message)]
    assert text.endswith(
        "its mean 0.485 0.456 0.406 and std 0.229 0.224 0.225 are taken, not mean 0.5 0.5 0.5 and "
        "std 0.25 0.25 0.25; its weight decay 1.0e-2 is taken, not 5.0e-1; "
        "train_bn stays True, not False"
    )
    assert other.transforms == first.transforms
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_learner(file, arch=tiny_net, device="cpu")


LARGE = [("vit_h_14", 224), ("regnet_y_128gf", 8192), ("maxvit_t", 8192), ("", 8192)]


@fault("files of 300 bytes that name networks of GB, and pictures of 8192 px", "refused at once")
@pytest.mark.parametrize(("arch", "size"), LARGE)
def test_a_small_file_costs_no_memory(arch, size, tiny_net, tmp_path, record_property) -> None:
    header = {"arch": arch, "head": "linear", "mean": [0.5] * 3, "std": [0.5] * 3, "size": size}
    header |= {"vocab": ["a", "b"], "frozen": 0, "train_bn": True}
    metadata = {"nbfinetune": json.dumps(header)}
    (tmp_path / "m").write_bytes(save_bytes({"model.x": torch.ones(1)}, metadata=metadata))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="m does not fit"):
        load_learner(tmp_path / "m", arch=tiny_net)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    record_property("seen", f"{grown} MB")
    assert grown < 100


def index(**changes: object) -> bytes:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes
    text = json.dumps({"model.x": entry}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4)


INDEXES = {
    "too long": struct.pack("<Q", 2**40) + b"{}",
    "shape of TB": index(shape=[2**40]),
    "no whole number": index(shape=[1.0]),
    "below 0": index(shape=[-1], data_offsets=[4, 0]),
    "unknown type": index(dtype="F3"),
    "apart": index(data_offsets=[4, 8]),
    "no list": index(shape=None),
    "deep": struct.pack("<Q", 40_000) + b"[" * 40_000,
    "twice": struct.pack("<Q", 15) + b'{"a": 1, "a":2}',
    "no bytes": b"",
}


@fault("indexes of a safetensors file that lie", "refused in one line before a tensor is made")
@pytest.mark.parametrize("case", INDEXES)
def test_an_index_that_lies_is_refused(case: str, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(INDEXES[case])
    assert "is no safetensors file, or is damaged" in refused(made(1), tmp_path / "m")


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The file with one or a few faults."""
    (n,) = struct.unpack("<Q", content[:8])
    m = bytearray(content)
    kind = rng.randrange(6)
    if kind == 0:  # bits anywhere
        for _ in range(rng.choice((1, 1, 2, 9))):
            m[rng.randrange(len(m))] ^= 1 << rng.randrange(8)
    elif kind == 1:  # bits of the index and the header
        m[rng.randrange(8 + n)] ^= 1 << rng.randrange(8)
    elif kind == 2:
        return bytes(m[: rng.randrange(len(m))])
    elif kind == 3:
        return bytes(m) + rng.randbytes(rng.randrange(1, 99))
    elif kind == 4:  # a piece of it elsewhere
        start, to = (rng.randrange(len(m) - 64) for _ in range(2))
        m[to : to + 64] = m[start : start + 64]
    else:
        return _lying(bytes(m), n, rng)
    return bytes(m)


def _lying(content: bytes, n: int, rng: random.Random) -> bytes:
    """The file with another header, index or tensors, whole as a safetensors file, or nearly."""
    listed = json.loads(content[8 : 8 + n])
    what = rng.randrange(5)
    # Without a digest half of the time, but for what is another file then, and a whole one.
    if what != 2 and rng.random() < 0.5:
        inside = json.loads(listed["__metadata__"]["nbfinetune"])
        inside.pop("digest")
        listed["__metadata__"]["nbfinetune"] = json.dumps(inside)
    name, other = rng.sample([k for k in listed if k != "__metadata__"], 2)
    odd = [-1, 2**63, "x", [], {}, 1.5, True, [0, 0], [2**40], "F16", "I32", "BF16"]
    if what == 0:
        listed[name][rng.choice(list(listed[name]))] = rng.choice(odd)
    elif what == 1:
        listed[f"{name}x"] = listed.pop(name)
    elif what == 2:
        listed[name], listed[other] = listed[other], listed[name]
    elif what == 3:
        inside = json.loads(listed["__metadata__"]["nbfinetune"])
        inside[rng.choice(["vocab", "frozen", "opt", "opt_weights"])] = rng.choice(odd)
        listed["__metadata__"]["nbfinetune"] = json.dumps(inside)
    else:
        listed[name]["shape"] = listed[other]["shape"]
    text = json.dumps(listed).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + n :]


def meaning(content: bytes) -> object:
    """Tensors and settings that a file gives, less what tells of versions; None if it has none."""
    (n,) = struct.unpack("<Q", content[:8])
    inside = json.loads(json.loads(content[8 : 8 + n])["__metadata__"]["nbfinetune"])
    settings = {k: inside.get(k) for k in ("vocab", "frozen", "opt")}
    return settings, {k: v.tolist() for k, v in parse(content).items()}


def try_mutations(file: Path, seed: int) -> dict[str, int]:
    """What came of a chunk of mutations; raises where a promise is broken."""
    content, counts = file.read_bytes(), {"refused": 0, "the same": 0}
    whole, rng = meaning(content), random.Random(seed)
    learn, target = made(1), file.with_name(f"mutation {seed}")
    before, after = bits(learn), bits(made())
    for _ in range(CHUNK):
        target.write_bytes(mutation := mutated(content, rng))
        said = ""
        try:
            learn.load(target)
        except ValueError as error:
            said = str(error)
        if said:
            assert "\n" not in said
            assert target.name in said
            assert bits(learn) == before, said
            counts["refused"] += 1
        else:
            assert meaning(mutation) == whole
            assert bits(learn) == after
            counts["the same"] += 1
            learn = made(1)
    return counts


def in_children(function: str, *arguments: object) -> list[dict[str, int]]:
    """What a function of this file gives in a process of its own, one after the other."""
    here = Path(__file__)
    code = (
        "import importlib.util, json, sys, pathlib\n"
        f"spec = importlib.util.spec_from_file_location('faults', {str(here)!r})\n"
        "module = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(module)\n"
        f"given = json.loads(sys.argv[1])\n"
        f"print(json.dumps(module.{function}(pathlib.Path(given[0]), *given[1:])))"
    )
    found = []
    for given in arguments:
        command = [sys.executable, "-c", code, json.dumps(given)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]  # below 0: killed, as by a bad address
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return found


@fault("100 mutations of a model file", "refused in one line, nothing changed; or the same")
def test_mutations_are_refused_or_harmless(saved: Path, monkeypatch, record_property) -> None:
    monkeypatch.setitem(globals(), "CHUNK", 100)
    record_property("seen", str(try_mutations(saved, 999)))


@pytest.mark.bulk
@fault(f"{CHUNK * CHUNKS} mutations of a model file", "refused in one line, nothing changed")
def test_thousands_of_mutations_are_refused_or_harmless(saved: Path, record_property) -> None:
    found = in_children("try_mutations", *([str(saved), seed] for seed in range(CHUNKS)))
    counts = {key: sum(chunk[key] for chunk in found) for key in found[0]}
    record_property("seen", ", ".join(f"{n} {key}" for key, n in counts.items()))
    assert sum(counts.values()) == CHUNK * CHUNKS


@pytest.mark.bulk
@pytest.mark.skipif(os.name == "nt", reason="no fork on Windows")
@fault(f"{KILLS} kill -9 while a file is saved over another", "the old or the new one, no parts")
def test_kills_in_save_leave_a_whole_file(tmp_path: Path, record_property) -> None:
    learn, file = made(width=3000), tmp_path / "m"
    learn.save(file)
    model, seen = learn.model[1].bias, set()
    for k in range(KILLS):
        if not (pid := os.fork()):
            try:
                for i in range(1, 10**6):
                    with torch.no_grad():
                        model.fill_(1000 * k + i)
                    learn.save(file, overwrite=True)
            finally:
                os._exit(1)
        time.sleep(0.005 + 0.0015 * k)
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        copy = deepcopy(learn)
        checkpoint.load(copy, file)  # whole, by its digest
        seen.add(copy.model[1].bias[0].item())
    learn.save(file, overwrite=True)
    assert os.listdir(tmp_path) == ["m"]
    record_property("seen", f"{KILLS} whole files, {len(seen)} different ones")


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))


STRANGE = {
    "NaN": (lambda s: s | {"0.weight": s["0.weight"] * torch.nan}, "0.weight has values that are"),
    "whole numbers": (lambda s: s | {"0.bias": torch.ones(2, dtype=torch.int32)}, "of torch.int32"),
    "sparse": (lambda s: s | {"0.weight": s["0.weight"].to_sparse()}, "no tensors are: 0.weight"),
    "of no values": (lambda s: s | {"0.weight": s["0.weight"].to("meta")}, "0.weight"),
    "of TB": (lambda s: s | {"0.weight": torch.zeros(1).expand(2**20, 2**20)}, "there but [2, 4]"),
    "variance": (lambda s: s | {"1.running_var": -torch.ones(2)}, "has variances below 0"),
    "names of lines": (lambda s: s | {"a\nb" * 9999: torch.ones(1)}, "1 unknown: a\\nb"),
}


@fault("state dicts of others with 7 kinds of odd tensors", "refused in one line")
@pytest.mark.parametrize("case", STRANGE)
def test_odd_tensors_of_others_are_refused(case: str, tmp_path: Path) -> None:
    change, message = STRANGE[case]
    torch.save(change(small().state_dict()), tmp_path / "w.pth")
    network = small()
    before = deepcopy(network.state_dict())
    with pytest.raises(ValueError, match=r"w\.pth") as caught:
        load_weights_file(network, tmp_path / "w.pth")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def try_weights(file: Path, seed: int) -> dict[str, int]:
    """What came of mutations of a weights file: loaded, or refused in one line."""
    content, rng, counts = file.read_bytes(), random.Random(seed), {"refused": 0, "taken": 0}
    target = file.with_name(f"mutation {seed}")
    for _ in range(CHUNK):
        m = bytearray(content)
        for _ in range(rng.choice((1, 1, 3, 20))):
            m[rng.randrange(len(m))] = rng.randrange(256)
        target.write_bytes(m[: rng.randrange(len(m))] if rng.random() < 0.2 else m)
        said, network = "", small()
        try:
            load_weights_file(network, target)
        except ValueError as error:
            said = str(error)
        assert len(said.splitlines()) <= 1, said
        assert not said or target.name in said
        counts["refused" if said else "taken"] += 1
        network(torch.ones(2, 4))
    return counts


@pytest.mark.bulk
@fault(f"{4 * CHUNK} mutations of weights=FILE, of torch.save (2 forms)", "one line, or loaded")
def test_mutations_of_weights_of_others_end_in_one_line(tmp_path: Path, record_property) -> None:
    arguments = []
    for form in (True, False):
        file = tmp_path / f"w{form}.pth"
        torch.save(small().state_dict(), file, _use_new_zipfile_serialization=form)
        arguments += [[str(file), seed] for seed in (1, 2)]
    found = in_children("try_weights", *arguments)
    record_property("seen", ", ".join(f"{sum(c[k] for c in found)} {k}" for k in found[0]))
