"""Which runs are of one method, and which of its settings tell them apart."""

from avalanche_gd.report.settings import by_method
from avalanche_gd.runs.results import read_run
from tests.helpers.fake_runs import write_run


def test_an_option_that_is_off_is_not_in_the_label(tmp_path):
    sizes = (None, 2000)
    runs = [
        read_run(write_run(tmp_path, seed=seed, settings={"method.pool_size": size}))
        for seed, size in enumerate(sizes)
    ]
    assert list(by_method(runs)) == ["naive", "naive, method.pool_size=2000"]


def test_a_run_of_an_earlier_version_has_the_settings_that_were_then_fixed(tmp_path):
    folder = write_run(tmp_path)
    text = (folder / "config.yaml").read_text()
    assert "replay_labels" not in text and "precision" not in text
    settings = read_run(folder).config
    assert settings["solver"]["replay_labels"] == "solver"
    assert settings["model"]["precision"] == "float32"
    assert settings["model"]["compile"] is settings["model"]["channels_last"] is False
