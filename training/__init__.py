"""The training stages, one module each; `trainer.py` runs them."""
