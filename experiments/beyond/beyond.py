"""Generative distillation and what the field has put beside it, on digits.

python experiments/beyond/beyond.py --seeds 0,1,2 --jobs 2
"""

import argparse
from pathlib import Path

from avalanche_gd.report.report_command import write_report
from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.side_by_side import end_with_failures, run_all

CONDITIONED = ("method=generative_distillation", "model.conditional=true")
VARIANTS = [
    ("method=generative_distillation",),
    *(("method=rank1_distillation", f"method.penalty={w}") for w in (100, 15000)),
    *(
        ("method=rank1_distillation", "method.penalty=100", f"method.control={name}")
        for name in ("diagonal", "shuffled")
    ),
    ("method=ewc_distillation", "method.penalty=50"),
    ("method=generative_distillation", "model.process=flow"),
    CONDITIONED,
    (*CONDITIONED, "method.unconditional_weight=1"),
    *(("method=snr_split_distillation", f"method.snr_threshold={s}") for s in (0.1, 1, 10)),
    *(("method=pair_distillation", f"method.pool_size={n}") for n in (2000, 8000)),
    ("method=balanced_distillation", "method.guidance_scale=0.3"),
    ("method=guide_distillation", "method.guidance_scale=0.3"),
]
"""The settings of each, all with the budget of the benchmark."""

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--out", default="runs", help="the folder of all runs")
    options = parser.parse_args()
    shared = ["threads=1", "evaluation.measures=[afid]", f"out={options.out}"]
    configs = [
        compose_config([*shared, *variant, f"seed={seed}"])
        for seed in options.seeds.split(",")
        for variant in VARIANTS
    ]
    failures = run_all(configs, options.jobs)
    folders = [config.folder for config in configs if config.folder not in failures]
    if folders:
        write_report(folders, Path(options.out) / "beyond-report")
    end_with_failures(failures)
