"""What is measured. `measurement` and `front` start without torch."""
