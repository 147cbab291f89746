"""Images and labels: sources, splits, batches and augmentation."""
