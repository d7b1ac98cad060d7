"""Which layers are networks made of?

Each file holds one idea. Layers know arrays only.
"""
