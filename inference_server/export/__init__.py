"""Models into other hosts: TorchScript for Nuke's Cattery, ONNX for Flame and others.

What leaves is stage one of the two-stage network, the translator: one picture in, one picture out, any size. The
refiner looks back in time and its own results, which a host that renders frames in any order cannot give it.
"""
