"""The state of an Avalanche strategy between experiences, for checkpoints."""

from typing import Any

from avalanche_gd.plugins.experiences import ExperienceCount
from avalanche_gd.training.plugin_state import load_plugin_states, plugin_states


def strategy_state(strategy: Any, plugins: list[Any]) -> dict[str, Any]:
    """What the strategy's next experience depends on, in tensors and plain containers.

    Random states are not in it: neither torch's own, which a run sets from its seed when an
    experience begins, nor that of a plugin's own ``generator=``. Set it again before the
    next experience, for example from ``generator.get_state()``.

    :param strategy: a strategy of Avalanche.
    :param plugins: those of its plugins that remember something.
    :raises ValueError: between the pieces of an experience in an online stream, as the
        teacher and the average of the weights would have to be saved too.
    """
    if ExperienceCount.of(strategy).is_in_pieces:
        raise ValueError(
            "a checkpoint can be made between experiences, but not between the pieces of "
            "an online stream; train on whole experiences"
        )
    return {
        "model": strategy.model.state_dict(),
        "optimizer": strategy.optimizer.state_dict(),
        "clock": dict(vars(strategy.clock)),
        "further_pieces": ExperienceCount.of(strategy).further_pieces,
        "plugins": plugin_states(plugins),
        "first_values": {
            str(metric): dict(metric.forgetting.initial)
            for metric in strategy.evaluator.metrics
            if hasattr(metric, "forgetting")
        },
        "qualities": [
            metric.qualities_of(strategy)
            for metric in strategy.evaluator.metrics
            if hasattr(metric, "qualities_of")
        ],
        "classes_logged": [
            metric.classes_logged
            for metric in strategy.evaluator.metrics
            if hasattr(metric, "classes_logged")
        ],
    }


def load_strategy_state(strategy: Any, plugins: list[Any], state: dict[str, Any]) -> None:
    """Restore a state.

    :param strategy: a new one.
    :param plugins: new ones, in the same order.
    :param state: from :func:`strategy_state`.
    """
    strategy.model.load_state_dict(state["model"])
    # Avalanche empties the optimizer the first time it sees the model: let it do so now.
    strategy.make_optimizer(reset_optimizer_state=True)
    strategy.optimizer.load_state_dict(state["optimizer"])
    vars(strategy.clock).update(state["clock"])
    further = state.get("further_pieces", 0)  # of an earlier version, none
    ExperienceCount.of(strategy).further_pieces = further
    load_plugin_states(plugins, state["plugins"], strategy.model)
    qualities = iter(state["qualities"])
    classes_logged = iter(state.get("classes_logged", ()))  # of an earlier version, none
    for metric in strategy.evaluator.metrics:
        if hasattr(metric, "forgetting"):
            metric.forgetting.initial = dict(state["first_values"][str(metric)])
        if hasattr(metric, "qualities_of"):
            metric.go_on_from(strategy, next(qualities))
        if hasattr(metric, "classes_logged"):
            metric.classes_logged = next(classes_logged, metric.classes_logged)
