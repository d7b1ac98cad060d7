"""How often is a network right, and on what grounds?"""
