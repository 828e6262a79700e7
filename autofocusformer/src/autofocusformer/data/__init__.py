"""What comes in: synthetic scenes, folders of labelled images, augmentation, batches."""
