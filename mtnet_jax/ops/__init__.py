"""Which operations are layers made of, and which form of each is fast where?

A file holds first an operation's definition, then its other forms.
"""
