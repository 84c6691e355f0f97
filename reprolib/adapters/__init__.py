"""What may move, and where it starts: all weights, layers, MLPs, LoRA, and LoRA placed by Fisher information
(FILA, VILA).
"""

from reprolib.adapters.base import MLP, Data, Full, LastLayers, LoRA
from reprolib.adapters.fisher_lora import FisherLoRA
from reprolib.adapters.names import Trainable, named

__all__ = ["MLP", "Data", "FisherLoRA", "Full", "LastLayers", "LoRA", "Trainable", "named"]
