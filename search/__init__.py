"""Which candidate next, and who evaluates it: Optuna, Ray Tune, the study loop."""
