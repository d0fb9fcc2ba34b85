"""What is kept of the models that runs have saved: FID in other features, and samples."""

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path

from avalanche_gd.evaluation.measure import Judge, Plan
from avalanche_gd.evaluation.subjects import Subject, compose_settings
from avalanche_gd.report.collect import shown
from avalanche_gd.report.section import Section
from avalanche_gd.runs.columns import features_in_words
from avalanche_gd.runs.results import csv_text
from avalanche_gd.runs.run import make_benchmark
from avalanche_gd.storage import write_text
from methods import Settings

FEATURES = ("method", "settings", "seed", "features", "images", "FID", "model", "run")
"""Of ``features.csv``; the model is known by the SHA-256 of what was evaluated."""


def write_features(
    sections: Sequence[Section], out: Path, settings: Settings, path: Path
) -> None:
    """Write FID of saved models in other features, and evaluate those that the CSV lacks.

    Of a model's first images, sampled as in its run, and the test images of all classes.
    Rows of models that are not here, and in other features, stay.

    :param sections: the runs.
    :param out: the folder in which those are that have a model here.
    :param settings: what differs, such as ``evaluation.features=mobilenet_v2``.
    """
    heads = {
        shown(run.folder): [label, section.difference, str(run.seed)]
        for section in sections
        for label, own in section.methods.items()
        for run in own
    }
    subjects = {
        name: Subject.of(str(out / name))
        for name in heads
        if (out / name / "model").is_dir()
    }
    # Whatever the seed, the test images of all classes are the same.
    shared = ("seed=0", "evaluation.measures=[]", *settings)
    config = compose_settings([*subjects.values()], shared, path.parent)
    sampling = config.evaluation
    way = [features_in_words(vars(sampling)), str(sampling.images)]
    others: list[list[str]] = []
    known: dict[str, str] = {}
    if path.is_file():
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                if row.get("run") in subjects and [row["features"], row["images"]] == way:
                    known[row["model"]] = row["FID"]
                else:
                    cells = [row.get(name) or "" for name in FEATURES]
                    others.append([*heads.get(cells[-1], cells[:3]), *cells[3:]])
    digests = {name: subject.digest() for name, subject in subjects.items()}
    judge = None
    for name, digest in digests.items():
        if digest not in known:
            subject = subjects[name]
            steps = subject.run["evaluation"]["steps"]
            plan = Plan(["own"], [steps], [sampling.images])
            judge = judge or Judge(config, make_benchmark(config), plan)
            (outcome,) = judge.outcomes(subject)
            known[digest] = str(outcome.values["FID"])
            print(*heads[name], *way, known[digest], flush=True)
        done = [
            [*heads[run], *way, known[of], of, run]
            for run, of in digests.items()
            if of in known
        ]
        write_text(path, csv_text(FEATURES, [*others, *done]))


def copy_samples(sections: Sequence[Section], out: Path, folder: Path) -> None:
    """Copy the pictures of seed 0 after the last experience.

    As ``LABEL.png``, or below the name of the section if it is not the first.

    :param sections: the runs.
    :param out: the folder in which those are that have pictures here.
    """
    for section in sections:
        own = folder / section.slug if section.number > 1 else folder
        last = f"samples/exp_{section.n_experiences - 1:03d}.png"
        for label, runs in section.methods.items():
            pictures = [out / shown(run.folder) / last for run in runs if run.seed == 0]
            for picture in filter(Path.is_file, pictures):  # a solver alone has none
                own.mkdir(parents=True, exist_ok=True)
                shutil.copy(picture, own / f"{label}.png")
