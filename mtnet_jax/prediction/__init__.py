"""Which classes does a network see in a user's video?"""

from mtnet_jax.prediction.loading import load
from mtnet_jax.prediction.predictor import Prediction, Predictor

__all__ = ['Prediction', 'Predictor', 'load']
