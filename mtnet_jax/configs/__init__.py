"""Which recipes are there? In a clone, those of the folder `configs`.

An installed package has that folder in the place of this one (setup.py).
"""

import pathlib

__path__ = [str(pathlib.Path(__file__).resolve().parents[2] / 'configs')]
