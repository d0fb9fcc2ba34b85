"""How long a step, a sample and an evaluation take, beside their own passes."""
