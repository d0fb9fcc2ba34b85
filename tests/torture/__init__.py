"""Runs, reports and caches under kills, damage, bad inputs and full disks.

``pytest -m torture`` runs all of it, in some minutes; ``pytest`` alone a sample of each.
"""
