"""A decoder's forward pass, layer by layer, in plain torch: what calibration, self-writing and evaluation run."""
