"""Requests of the executor."""

from dataclasses import dataclass


@dataclass
class LoRARequest:
    """An adapter, as a request names it."""

    lora_name: str
    lora_int_id: int
    lora_path: str = ""
