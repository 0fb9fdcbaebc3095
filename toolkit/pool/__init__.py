"""Several models on one device: loaded when they are asked for, unloaded when room is needed."""
