"""Generative distillation and other ideas of the field to improve it, on digits.

python experiments/beyond/beyond.py --seeds 0,1,2 --jobs 2
"""

from pathlib import Path

from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.errors import (
    OneLineParser,
    ending_when_interrupted,
    ending_with_one_line,
)
from avalanche_gd.runs.suite import run_and_report

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
"""The settings of the variants, all with the budget of the benchmark."""


def main() -> None:
    """Run all variants that are missing, and report them."""
    parser = OneLineParser(description=__doc__)
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
    run_and_report(configs, options.jobs, Path(options.out).expanduser() / "beyond-report")


if __name__ == "__main__":
    line = "interrupted; run the same command again to continue"
    with ending_when_interrupted(line), ending_with_one_line():
        main()
