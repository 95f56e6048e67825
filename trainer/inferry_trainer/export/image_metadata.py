"""What ONNX's own metadata says about the pictures that a graph takes.

The names are those of ONNX's `MetadataProps.md` and `TypeDenotation.md`: a tool that knows nothing of Inferry's
manifest learns from the graph how its pixels are stored.
"""

import onnx

_IMAGE = "IMAGE"
_NHWC = ("DATA_BATCH", "DATA_FEATURE", "DATA_FEATURE", "DATA_CHANNEL")
_PIXEL_FORMATS = {1: "Gray8", 3: "Rgb8"}


def describe_image_input(model: onnx.ModelProto) -> None:
    """Say that the graph's first input holds pictures, `(N, H, W, C)` uint8, and how their pixels are stored.

    Levels go from 0 to 255, and are sRGB's: preprocessing passes them on as picture files have them. ONNX has no name
    for pictures of other than one or three channels, so the metadata of such a graph leaves their format out.
    """
    image = model.graph.input[0].type
    axes = image.tensor_type.shape.dim
    image.denotation = _IMAGE
    for axis, denotation in zip(axes, _NHWC, strict=True):
        axis.denotation = denotation
    properties = {"Image.ColorSpaceGamma": "SRGB", "Image.NominalPixelRange": "NominalRange_0_255"}
    if axes[-1].dim_value in _PIXEL_FORMATS:
        properties["Image.BitmapPixelFormat"] = _PIXEL_FORMATS[axes[-1].dim_value]
    known = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, known | properties)
