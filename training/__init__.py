"""What is trained: a backbone, and what reductions need to know of it."""
