"""Studies: what depends on what. Failures, occlusion sweeps, tuning, matchings side by side, what a reduction costs."""
