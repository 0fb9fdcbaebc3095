"""Where LoRARequest lives."""
