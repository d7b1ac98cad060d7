"""How do the thesis's published numbers compare with ours?"""
