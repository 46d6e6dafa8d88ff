"""Measurements. Times are taken from the waveform at the caller's side, sound to sound."""
