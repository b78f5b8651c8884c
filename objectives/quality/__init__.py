"""What answers are worth: images, accuracy, and how sure that is."""
