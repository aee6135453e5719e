"""`lite`, this project's own engine, with the embedded weights.

engine.py is the engine; model.py what it has learnt; speech.py and picture.py let a copy learn from a person.
"""
