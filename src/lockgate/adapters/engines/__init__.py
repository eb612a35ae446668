"""What runs models: one module per library, imported only by whoever uses that library.

`onnx_engine` serves, `lightgbm_engine` stands by, `convert` makes the first out of the second.
"""
