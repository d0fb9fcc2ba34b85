"""Summaries of the quality of generation over a stream."""

import statistics
from collections.abc import Iterable, Mapping

Qualities = dict[int, dict[int, float]]
"""FID by the number of experiences trained on (from 1) and by experience (from 0)."""


def generation_summary(
    qualities: Qualities, counts_after: Mapping[int, int] | None = None
) -> dict[str, float]:
    """Final quality, mean quality and forgetting (after CLoG, arXiv 2406.04584, section 4).

    ``Q[i, j]`` is the FID on experience j after training on i experiences; n is the number
    of experiences so far. Lower is better. The mean over i leaves out where only a part of
    the experiences so far was measured::

        Final      = mean over j of Q[n, j]
        Mean       = mean over i of the mean over j of Q[i, j]
        Forgetting = mean over j < n of Q[n, j] - Q[j, j]

    :param qualities: what was measured, after each experience or after some of them.
    :param counts_after: after how many experiences each was measured first; None for
        experience 0 after one, experience 1 after two, and so on.
    :return: ``Final`` and ``Mean``; from the second experience on also ``Forgetting``, over
        the experiences that were measured right after their training. NaN if an experience
        was not generated.
    :raises ValueError: if nothing was measured after some number of experiences, or if
        ``counts_after`` lacks an experience that was measured last.
    """
    last = _last(qualities)
    after = _after(qualities[last], counts_after)
    _check_known(after, qualities[last])
    summary = {
        "Final": statistics.fmean(qualities[last].values()),
        "Mean": statistics.fmean(
            statistics.fmean(row.values())
            for count, row in qualities.items()
            if row.keys() >= {j for j, first in after.items() if first <= count}
        ),
    }
    losses = [
        now - qualities[after[j]][j]
        for j, now in qualities[last].items()
        if after[j] < last and j in qualities.get(after[j], {})
    ]
    if losses:
        summary["Forgetting"] = statistics.fmean(losses)
    return summary


def _last(qualities: Qualities) -> int:
    """The highest number of experiences; raise ValueError if nothing was measured."""
    if not qualities or not all(qualities.values()):
        raise ValueError(
            "qualities must have the FID of an experience for each number of experiences, "
            f"as {{1: {{0: 4.0}}}}, got {qualities!r}"
        )
    return max(qualities)


def _check_known(after: Mapping[int, int], places: Iterable[int]) -> None:
    """Raise ValueError if ``counts_after`` lacks an experience."""
    lacking = sorted(set(places) - set(after))
    if lacking:
        raise ValueError(
            f"counts_after lacks the experiences {lacking}, which are in qualities; give "
            "after how many experiences they were measured first"
        )


def _after(places: Iterable[int], known: Mapping[int, int] | None) -> dict[int, int]:
    """After how many experiences each place was measured first."""
    if known is None:
        return {place: place + 1 for place in places}
    return {place: known[place] for place in places if place in known}


def afid_summary(
    qualities: Qualities, counts_after: Mapping[int, int] | None = None
) -> dict[str, float]:
    """AFID@k and F of continual generation (arXiv 2509.23593).

    ``FID_i(m_k)`` is the FID on experience i of the model after k experiences; T is the
    number of experiences so far. For both results lower is better::

        AFID = (1/T) sum over i of FID_i(m_T)
        F    = (1/T) sum over k of FID_k(m_T) - FID_k(m_k)

    The last term of F is 0, so that F is (T - 1)/T of the ``Forgetting`` of
    :func:`generation_summary`; AFID is its ``Final``.

    :param qualities: what was measured after each experience.
    :param counts_after: as in :func:`generation_summary`.
    :return: ``AFID`` and ``F``; F is NaN if an experience was not measured right after its
        training.
    :raises ValueError: as in :func:`generation_summary`.

    >>> afid_summary({1: {0: 3.0}, 2: {0: 5.0, 1: 4.0}})
    {'AFID': 4.5, 'F': 1.0}
    """
    last, nan = _last(qualities), float("nan")
    after = _after(qualities[last], counts_after)
    _check_known(after, qualities[last])
    losses = [
        now - qualities.get(after[j], {}).get(j, nan) for j, now in qualities[last].items()
    ]
    return {
        "AFID": statistics.fmean(qualities[last].values()),
        "F": statistics.fmean(losses),
    }


def transfer_summary(
    qualities: Qualities, counts_after: Mapping[int, int] | None = None
) -> dict[str, float]:
    """Backward and forward transfer of FID (arXiv 1706.08840, equations 3 and 4).

    ``FID_i(m_k)`` is the FID on experience i of the model after k experiences, T is the
    number of experiences so far, and m_0 is the model before all training::

        Backward = 1/(T-1) sum over i < T of FID_i(m_i) - FID_i(m_T)
        Forward  = 1/(T-1) sum over i > 1 of FID_i(m_0) - FID_i(m_{i-1})

    Lower FID is better, so the terms have the opposite sign of those for accuracy: both
    results are above 0 if training on one experience helps another, and below 0 if it
    harms. Backward is ``Forgetting`` of :func:`generation_summary` with the opposite sign.

    :param qualities: what was measured, also after 0 experiences, and on experiences that
        were not trained on yet.
    :param counts_after: as in :func:`generation_summary`, for those trained on.
    :return: ``Backward`` and ``Forward``, each if there is a term.
    :raises ValueError: if nothing was measured after some number of experiences.

    >>> transfer_summary({0: {0: 9.0, 1: 9.0}, 1: {0: 2.0, 1: 7.0}, 2: {0: 3.0, 1: 2.0}})
    {'Backward': -1.0, 'Forward': 2.0}
    """
    last = _last(qualities)
    after = _after(qualities[last], counts_after)
    backward, forward = [], []
    for place, count in after.items():
        then, before = (qualities.get(k, {}).get(place) for k in (count, count - 1))
        if then is not None and count < last:
            backward.append(then - qualities[last][place])
        untrained = qualities.get(0, {}).get(place)
        if before is not None and untrained is not None and count > 1:
            forward.append(untrained - before)
    terms = {"Backward": backward, "Forward": forward}
    return {name: statistics.fmean(own) for name, own in terms.items() if own}
