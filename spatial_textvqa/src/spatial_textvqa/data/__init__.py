"""What comes in: scenes, receipts, TextVQA and ST-VQA, and their way into tensors."""
