"""How do weights of other authors' PyTorch networks become runs?"""
