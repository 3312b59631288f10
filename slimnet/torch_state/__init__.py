"""What belongs to the process or the device: random numbers, precision, threads, warnings."""
