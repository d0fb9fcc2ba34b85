"""Measure how long a step, a sample and an evaluation take, and their passes alone."""
