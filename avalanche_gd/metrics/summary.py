"""The quality of generation over a stream, in three numbers."""

import statistics

Qualities = dict[int, dict[int, float]]
"""FID by number of experiences trained on (from 1) and by experience (from 0)."""


def generation_summary(qualities: Qualities) -> dict[str, float]:
    """Final quality, mean quality and forgetting (after CLoG, arXiv 2406.04584, section 4).

    With ``Q[i, j]`` the FID on experience j once i experiences were trained on, of n so
    far, all lower is better::

        Final      = mean over j of Q[n, j]
        Mean       = mean over i of the mean over j of Q[i, j]
        Forgetting = mean over j < n of Q[n, j] - Q[j, j]

    :param qualities: what was measured, after each experience or after some.
    :return: ``Final`` and ``Mean``; ``Forgetting`` from the second experience on, over
        the experiences that were measured right after their training. Not a number where
        an experience was not generated at all.
    """
    last = max(qualities)
    summary = {
        "Final": statistics.fmean(qualities[last].values()),
        "Mean": statistics.fmean(statistics.fmean(q.values()) for q in qualities.values()),
    }
    losses = [
        now - qualities[j + 1][j]
        for j, now in qualities[last].items()
        if j + 1 < last and j in qualities.get(j + 1, {})
    ]
    if losses:
        summary["Forgetting"] = statistics.fmean(losses)
    return summary
