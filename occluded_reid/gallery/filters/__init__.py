"""What rows of a gallery must fulfil: conditions from `field`, mappings, and text."""
