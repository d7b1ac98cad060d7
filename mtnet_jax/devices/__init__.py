"""On which devices, processes and memory does a program run?"""
