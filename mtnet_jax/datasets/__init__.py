"""Which data sets can be prepared? In a clone, those of the folder `data`.

An installed package has that folder in the place of this one (setup.py).
"""

import pathlib

__path__ = [str(pathlib.Path(__file__).resolve().parents[2] / 'data')]
