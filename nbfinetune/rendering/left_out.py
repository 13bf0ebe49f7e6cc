"""Left out: names of fastai that are not here, each with what to write in its place."""

_LEFT_OUT = {
    "nbfinetune": {
        "untar_data": 'downloads are yours; give their folder: path = Path("oxford-iiit-pet")',
        "URLs": 'downloads are yours; give their folder: path = Path("oxford-iiit-pet")',
        "DataBlock": "ImageDataLoaders.from_folder, from_name_re, from_csv, from_lists",
        "ImageBlock": "ImageDataLoaders.from_lists(path, files, labels)",
        "CategoryBlock": "ImageDataLoaders.from_lists(path, files, labels)",
        "RandomSplitter": "valid_pct= and seed= of ImageDataLoaders.from_...",
        "GrandparentSplitter": 'ImageDataLoaders.from_folder(path, train="train", valid="valid")',
        "RegexLabeller": "ImageDataLoaders.from_name_re(path, files, pat)",
        "using_attr": "ImageDataLoaders.from_name_re(path, files, pat)",
        "parent_label": "ImageDataLoaders.from_folder(path)",
        "Resize": "size= of ImageDataLoaders.from_...",
        "RandomResizedCrop": "size= and aug= of ImageDataLoaders.from_...",
        "aug_transforms": "aug=True of ImageDataLoaders.from_... (the default)",
        "Normalize": "normalize= of vision_learner; the weights bring theirs",
        "ImageClassifierCleaner": "%label_issues or %top_losses to mark pictures, then %clean",
        "PILImage": "PIL.Image, or learn.predict(file)",
        "verify_images": "check_images(path)",
        "Interpretation": "ClassificationInterpretation",
        "SaveModelCallback": "SaveBest",
        "EarlyStoppingCallback": "EarlyStopping",
        "CSVLogger": 'LogTo("log.csv")',
        "WandbCallback": "LogTo(wandb)",
        "TensorBoardCallback": "LogTo(SummaryWriter())",
        "F1Score": 'metrics="f1_macro"',
        "RocAuc": 'metrics="roc_auc"',
        "accuracy_multi": 'metrics="accuracy_multi"',
        "LabelSmoothingCrossEntropy": "label_smoothing= of vision_learner",
    },
    "Learner": {
        "to_fp16": 'vision_learner(..., amp="fp16"); by default it is used where it is faster',
        "to_fp32": 'vision_learner(..., amp="off")',
        "add_cb": "learn.cbs = [*learn.cbs, callback]",
        "add_cbs": "learn.cbs = [*learn.cbs, *callbacks]",
        "remove_cb": "learn.cbs = [cb for cb in learn.cbs if ...]",
        "no_bar": "with learn.quiet():",
        "no_logging": "with learn.quiet():",
        "tta": "learn.get_preds()",
        "show_training_loop": "the events of a Callback, in help(Callback)",
    },
    "ImageDataLoaders": {
        "one_batch": "next(iter(dls.train))",
        "train_ds": "dls.train.dataset",
        "valid_ds": "dls.valid.dataset",
        "after_batch": "learn.transforms",
    },
    "Recorder": {
        "plot_lr_find": "what learn.lr_find() returns; it shows itself",
        "plot_metrics": "learn.recorder.plot_loss()",
        "losses": "learn.recorder.run.losses",
        "values": "learn.recorder.run.rows",
        "lrs": "learn.recorder.run.lrs",
    },
}


def names_left_out(owner: str) -> list[str]:
    """The names of fastai's that `owner` has not, but could say what to write for."""
    return [*_LEFT_OUT[owner]]


def left_out(owner: str, name: str) -> str:
    """Why there is no `name`, in one line: with what to write where fastai has it.

    Parameters
    ----------
    owner : "nbfinetune" or a class, such as "Learner"

    Examples
    --------
    >>> left_out("ImageDataLoaders", "one_batch")
    "ImageDataLoaders has no one_batch, which is fastai's; write next(iter(dls.train))"
    """
    instead = _LEFT_OUT[owner].get(name)
    if instead is None:
        return f"{owner!r} object has no attribute {name!r}"
    return f"{owner} has no {name}, which is fastai's; write {instead}"
