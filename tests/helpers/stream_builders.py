"""Streams of each of Avalanche's builders, of small labelled images in model space."""

from itertools import islice

import torch
from avalanche import benchmarks as builders
from avalanche.benchmarks.scenarios.generic_scenario import make_stream
from avalanche.benchmarks.scenarios.task_aware import with_task_labels
from avalanche.benchmarks.utils import AvalancheDataset, concat_datasets
from PIL import Image
from torch.utils.data import TensorDataset

from avalanche_gd import SmallCNN, SplitDigits, to_model_space
from avalanche_gd.data.model_space import as_benchmark, as_dataset, dataset_tensors
from tests.helpers.small_models import SHAPE, images
from tests.helpers.small_streams import (
    DOMAINS,
    FEW_CLASSES,
    domain,
    domain_datasets,
    domain_incremental,
)


def whole(part: str):
    """All domains in one dataset, with targets."""
    dataset = concat_datasets(domain_datasets()[part])
    return as_dataset(*dataset_tensors(dataset))


def by_class(n_experiences=4, **options):
    return builders.nc_benchmark(
        whole("train"), whole("test"), n_experiences, shuffle=False, **options
    )


def classes_in_model_space():
    """An experience for each class, in streams that know their benchmark."""
    return to_model_space(by_class(task_labels=False), SHAPE)


def classes_of_no_benchmark():
    """The same in streams that know no benchmark."""
    streams = classes_in_model_space().streams.items()
    return builders.benchmark_from_datasets(
        **{name: [experience.dataset for experience in part] for name, part in streams}
    )


def with_two_experiences(benchmark):
    """What is trained on, what is evaluated, and which of it counts then."""
    return list(islice(benchmark.train_stream, 2)), benchmark.test_stream, [0, 1]


def pieces_of_two(stream, size=20):
    """Online pieces, of the first two experiences."""
    pieces = list(builders.split_online_stream(stream, size))
    return [p for p in pieces if p.origin_experience.current_experience < 2]


def nc(tmp_path):
    return with_two_experiences(by_class(task_labels=False))


def nc_with_tasks(tmp_path):
    return with_two_experiences(by_class(task_labels=True))


def nc_numbered_anew(tmp_path):
    options = dict(task_labels=True, class_ids_from_zero_in_each_exp=True)
    return with_two_experiences(by_class(2, **options))


def nc_in_model_space(tmp_path):
    return with_two_experiences(to_model_space(by_class(task_labels=False), SHAPE))


def digits_of_ours(tmp_path):
    return with_two_experiences(SplitDigits(5))


def ni(tmp_path):
    benchmark = builders.ni_benchmark(
        whole("train"), whole("test"), 3, balance_experiences=True
    )
    train, test, _ = with_two_experiences(benchmark)
    return train, test, [0]  # one test experience for all, whose classes were trained on


def new_instances(tmp_path):
    benchmark = builders.new_instances_benchmark(whole("train"), whole("test"), 3)
    train, test, _ = with_two_experiences(benchmark)
    return train, test, [0]


def class_incremental(tmp_path):
    datasets = {"train": whole("train"), "test": whole("test")}
    return with_two_experiences(
        builders.class_incremental_benchmark(datasets, num_experiences=4, seed=0)
    )


def task_incremental(tmp_path):
    return with_two_experiences(
        builders.task_incremental_benchmark(domain_incremental(), reset_task_labels=True)
    )


def from_datasets(tmp_path):
    return with_two_experiences(domain_incremental())


def domains_in_model_space(tmp_path):
    return with_two_experiences(to_model_space(domain_incremental(), SHAPE))


def decorated(tmp_path):
    benchmark = builders.with_classes_timeline(with_task_labels(domain_incremental()))
    return with_two_experiences(benchmark)


def dataset_benchmark(tmp_path):
    data = domain_datasets()
    return with_two_experiences(builders.dataset_benchmark(data["train"], data["test"]))


def tensors_benchmark(tmp_path):
    streams = {
        name: [dataset_tensors(dataset) for dataset in parts]
        for name, parts in domain_datasets().items()
    }
    return with_two_experiences(
        builders.tensors_benchmark(
            streams["train"], streams["test"], task_labels=[0] * DOMAINS
        )
    )


def image_files(folder):
    """A file an image, by stream and domain."""
    files = {}
    for name, parts in domain_datasets().items():
        files[name] = []
        for number, dataset in enumerate(parts):
            files[name].append([])
            for i, (image, label, _) in enumerate(dataset):
                path = folder / f"{name}-{number}-{i}.png"
                pixels = ((image[0] + 1) * 127.5).round().to(torch.uint8).numpy()
                Image.fromarray(pixels).convert("RGB").save(path)
                files[name][-1].append((path, int(label)))
    return files


def paths_benchmark(tmp_path):
    files = image_files(tmp_path)
    benchmark = builders.paths_benchmark(
        files["train"], files["test"], task_labels=[0] * DOMAINS
    )
    return with_two_experiences(to_model_space(benchmark, (3, 8, 8)))


def filelist_benchmark(tmp_path):
    lists = {}
    for name, parts in image_files(tmp_path).items():
        lists[name] = []
        for number, part in enumerate(parts):
            path = tmp_path / f"{name}-{number}.txt"
            path.write_text("\n".join(f"{file.name} {label}" for file, label in part))
            lists[name].append(path)
    benchmark = builders.filelist_benchmark(
        tmp_path, lists["train"], lists["test"], task_labels=[0] * DOMAINS
    )
    return with_two_experiences(to_model_space(benchmark, (3, 8, 8)))


def validated(tmp_path):
    benchmark = builders.benchmark_with_validation_stream(domain_incremental(), 0.25)
    return with_two_experiences(benchmark)


def validation_of_ours(tmp_path):
    ours = to_model_space(domain_incremental(), SHAPE)
    benchmark = builders.benchmark_with_validation_stream(ours, 0.25)
    train, _, counting = with_two_experiences(benchmark)
    return train, benchmark.valid_stream, counting


def online(tmp_path):
    benchmark = domain_incremental()
    return pieces_of_two(benchmark.train_stream), benchmark.test_stream, [0, 1]


def online_of_ours(tmp_path):
    benchmark = to_model_space(domain_incremental(), SHAPE)
    return pieces_of_two(benchmark.train_stream), benchmark.test_stream, [0, 1]


def online_scenario(tmp_path):
    benchmark = domain_incremental()
    scenario = builders.OnlineCLScenario(benchmark.streams.values(), experience_size=20)
    pieces = scenario.train_online_stream
    train = [p for p in pieces if p.origin_experience.current_experience < 2]
    return train, scenario.original_test_stream, [0, 1]


def data_incremental(tmp_path):
    data = domain_datasets()
    benchmark = builders.dataset_benchmark(data["train"], data["test"])
    benchmark = builders.data_incremental_benchmark(benchmark, 20)
    train, test, _ = with_two_experiences(benchmark)
    return train, test, [0, 1, 2]  # pieces know nothing of what they were cut from


def of_no_known_end(tmp_path):
    benchmark = domain_incremental()
    stream = make_stream("train", (experience for experience in benchmark.train_stream))
    return list(islice(stream, 2)), benchmark.test_stream, [0, 1, 2]


def with_a_joint_test(tmp_path):
    data = domain_datasets()
    benchmark = as_benchmark(train=data["train"], test=[whole("test")])
    train, test, _ = with_two_experiences(benchmark)
    return train, test, [0]


def with_more_tests(tmp_path):
    train = by_class(2, task_labels=False).train_stream
    test = by_class(4, task_labels=False).test_stream
    return [train[0]], test, [0, 1]


def in_another_order(tmp_path):
    experiences = list(by_class(2, task_labels=False).train_stream)
    first, second = (experience.dataset for experience in experiences)
    benchmark = as_benchmark(train=[first, second], test=[second, first])
    return [benchmark.train_stream[0]], benchmark.test_stream, [1]


BUILDERS = [
    nc,
    nc_with_tasks,
    nc_numbered_anew,
    nc_in_model_space,
    digits_of_ours,
    ni,
    new_instances,
    class_incremental,
    task_incremental,
    from_datasets,
    domains_in_model_space,
    decorated,
    dataset_benchmark,
    tensors_benchmark,
    paths_benchmark,
    filelist_benchmark,
    validated,
    validation_of_ours,
    online,
    online_of_ours,
    online_scenario,
    data_incremental,
    of_no_known_end,
    with_a_joint_test,
    with_more_tests,
    in_another_order,
]


def of_linear_decay():
    stream = domain_incremental().train_stream
    return builders.split_continuous_linear_decay_stream(stream, 20, 2, 4, True)


def of_models():
    benchmark = builders.with_classes_timeline(domain_incremental())
    models = [SmallCNN(SHAPE, FEW_CLASSES)] * DOMAINS
    return builders.ExModelCLScenario(benchmark, models).expert_models_stream


def of_no_stream():
    return [builders.DatasetExperience(dataset=domain(0), current_experience=0)]


def of_unlabelled():
    parts = [AvalancheDataset([TensorDataset(images(20))]) for _ in range(2)]
    return builders.benchmark_from_datasets(train=parts).train_stream


def of_pixels():
    bytes_ = TensorDataset(torch.full((20, *SHAPE), 200.0), torch.arange(20) % 2)
    bytes_.targets = (torch.arange(20) % 2).tolist()
    return builders.nc_benchmark(bytes_, bytes_, 2, task_labels=False).train_stream


def of_a_generator():
    return make_stream("train", (exp for exp in domain_incremental().train_stream))
