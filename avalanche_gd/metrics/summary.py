"""The quality of generation over a stream, in three numbers."""

import statistics
from collections.abc import Mapping

Qualities = dict[int, dict[int, float]]
"""FID by number of experiences trained on (from 1) and by experience (from 0)."""


def generation_summary(
    qualities: Qualities, counts_after: Mapping[int, int] | None = None
) -> dict[str, float]:
    """Final quality, mean quality and forgetting (after CLoG, arXiv 2406.04584, section 4).

    With ``Q[i, j]`` the FID on experience j once i experiences were trained on, of n so
    far; lower is better::

        Final      = mean over j of Q[n, j]
        Mean       = mean over i of the mean over j of Q[i, j]
        Forgetting = mean over j < n of Q[n, j] - Q[j, j]

    :param qualities: what was measured, after each experience or after some.
    :param counts_after: after how many experiences each was measured first; None for
        experience 0 after one, 1 after two, and so on.
    :return: ``Final`` and ``Mean``; ``Forgetting`` from the second experience on, over
        the experiences that were measured right after their training. Not a number where
        an experience was not generated.
    """
    last = max(qualities)
    summary = {
        "Final": statistics.fmean(qualities[last].values()),
        "Mean": statistics.fmean(statistics.fmean(q.values()) for q in qualities.values()),
    }
    after = {j: j + 1 for j in qualities[last]} if counts_after is None else counts_after
    losses = [
        now - qualities[after[j]][j]
        for j, now in qualities[last].items()
        if after[j] < last and j in qualities.get(after[j], {})
    ]
    if losses:
        summary["Forgetting"] = statistics.fmean(losses)
    return summary
