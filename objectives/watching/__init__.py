"""Whether what enters a reduced model still looks like what it was calibrated on, and what to do where it does not."""
