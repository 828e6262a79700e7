"""Gravitational waves: detectors, noise curves, waveforms, whitening and signal-to-noise ratios, in float64."""
