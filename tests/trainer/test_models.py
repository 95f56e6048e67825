import numpy as np

from inferry_trainer.models import build_mnist_cnn


def test_the_mnist_network_has_the_chapters_parameters() -> None:
    model = build_mnist_cnn((28, 28, 1), classes=10)
    assert model.count_params() == 3_274_634
    assert {layer.name: layer.count_params() for layer in model.layers if layer.weights} == {
        "conv_1": 832,
        "conv_2": 51_264,
        "fc_1": 3_212_288,
        "fc_2": 10_250,
    }


def test_the_mnist_network_has_the_chapters_shapes() -> None:
    model = build_mnist_cnn((28, 28, 1), classes=10)
    assert [layer.output.shape[1:] for layer in model.layers] == [
        (28, 28, 32),
        (14, 14, 32),
        (14, 14, 64),
        (7, 7, 64),
        (3136,),
        (1024,),
        (1024,),
        (10,),
    ]
    assert model.get_layer("dropout").rate == 0.5


def test_the_network_gives_probabilities() -> None:
    model = build_mnist_cnn((28, 28, 1), classes=10)
    outputs = np.asarray(model(np.random.default_rng(0).random((3, 28, 28, 1), np.float32)))
    assert np.allclose(outputs.sum(axis=1), 1)
    assert (outputs >= 0).all()
