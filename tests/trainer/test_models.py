import numpy as np
import pytest

from inferry_trainer.config import NETWORKS
from inferry_trainer.errors import ConfigError
from inferry_trainer.models import build_all_conv, build_celeba_cnn, build_deep_cnn, build_mnist_cnn, build_network


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


def test_the_celeba_network_has_the_chapters_parameters_and_shapes() -> None:
    model = build_celeba_cnn((64, 64, 3), classes=2)
    assert model.count_params() == 388_673
    assert {layer.name: layer.count_params() for layer in model.layers if layer.weights} == {
        "conv_1": 896,
        "conv_2": 18_496,
        "conv_3": 73_856,
        "conv_4": 295_168,
        "logit": 257,
    }
    assert [layer.output.shape[1:] for layer in model.layers if "dropout" not in layer.name] == [
        (64, 64, 32),
        (32, 32, 32),
        (32, 32, 64),
        (16, 16, 64),
        (16, 16, 128),
        (8, 8, 128),
        (8, 8, 256),
        (256,),
        (1,),
    ]
    assert [model.get_layer(name).rate for name in ("dropout_1", "dropout_2")] == [0.5, 0.5]
    assert model.layers[-1].activation.__name__ == "linear"


def test_the_all_convolutional_network_has_neither_pooling_windows_nor_dense_layers() -> None:
    model = build_all_conv((28, 28, 1), classes=10)
    kinds = {type(layer).__name__ for layer in model.layers}
    assert kinds == {"Conv2D", "Dropout", "GlobalAveragePooling2D", "Activation"}
    assert [layer.strides for layer in model.layers if layer.name.startswith("down")] == [(2, 2), (2, 2)]


def test_the_deep_network_normalises_every_convolution() -> None:
    model = build_deep_cnn((28, 28, 1), classes=10)
    assert model.count_params() == 576_170
    kinds = [type(layer).__name__ for layer in model.layers]
    convolutions = [place for place, kind in enumerate(kinds) if kind == "Conv2D"]
    assert len(convolutions) == 5
    assert all(kinds[place + 1 : place + 3] == ["BatchNormalization", "ReLU"] for place in convolutions)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("shape", "classes"), [((28, 28, 1), 10), ((64, 64, 3), 2), ((8, 12, 3), 3)])
def test_every_network_takes_any_picture_and_any_number_of_classes(
    name: str, shape: tuple[int, int, int], classes: int
) -> None:
    model = build_network(name, shape, classes=classes)
    outputs = np.asarray(model(np.random.default_rng(0).random((3, *shape), np.float32)))
    if classes == 2 and name != "mnist-cnn":
        assert outputs.shape == (3, 1)
    else:
        assert outputs.shape == (3, classes)
        assert np.allclose(outputs.sum(axis=1), 1, atol=1e-5)


def test_an_unknown_network_and_pictures_too_small_are_refused() -> None:
    with pytest.raises(ConfigError, match="there is no network 'resnet'; expected one of mnist-cnn"):
        build_network("resnet", (28, 28, 1), classes=10)
    with pytest.raises(ConfigError, match="celeba-cnn needs pictures of at least 8x8 pixels; 9x7 came"):
        build_network("celeba-cnn", (7, 9, 1), classes=2)
