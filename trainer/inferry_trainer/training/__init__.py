"""From a data set to a trained Keras model in a run folder."""
