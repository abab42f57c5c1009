"""Model cards, import of published checkpoints, and the safetensors store."""
