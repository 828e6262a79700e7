"""Data (section 3): strain from files, the mock data challenge's sets, and signals simulated on the fly."""
