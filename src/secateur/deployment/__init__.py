"""Models in the formats of other runtimes: ONNX files and exported programs."""
