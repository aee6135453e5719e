"""From raw videos to training batches."""
