"""What takes how long: measured on a device, and predicted from its profile."""
