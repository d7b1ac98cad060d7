"""How is a network trained?"""
