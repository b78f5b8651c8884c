"""How a Vision Transformer runs under a schedule: tensor functions, the door to timm, the embedded default."""
