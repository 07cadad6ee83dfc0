"""Move the weights: a linear classifier on a stage, fine-tuning, and what they need."""
