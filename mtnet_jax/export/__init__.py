"""How does a network leave this library, as a program and as weights?"""
