"""mma_realtime, reproduced."""
